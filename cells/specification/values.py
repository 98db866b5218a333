"""Single values of a declaration, each judged with a place, a sentence and a hint."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cells.specification.model import SpecificationError


def choice(value: Any, choices: tuple[str, ...], where: str) -> str:
    """One of the words. Raises ``SpecificationError``, as all of these do."""
    if value not in choices:
        raise SpecificationError(f"`{value}` isn't known.", f"Write one of {', '.join(choices)}.", where)
    return value


def number(value: Any, least: float, most: float, where: str, kind: type) -> Any:
    """A number between both, ends included."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
        raise SpecificationError(f"`{value}` isn't a number from {least} to {most}.", "Correct it.", where)
    if kind is int and value != int(value):
        raise SpecificationError(f"`{value}` isn't a whole number.", "Correct it.", where)
    return kind(value)


def only(raw: Mapping, known: tuple[str, ...], path: str) -> None:
    """No other keys than these."""
    for key in raw:
        if key not in known:
            where = f"cytoplane.yaml, {path}" if path else "cytoplane.yaml"
            raise SpecificationError(f"`{key}` isn't known here.", f"Known are {', '.join(known)}.", where)
