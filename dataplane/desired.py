"""Desired state in units, and all of them together: the same for who sends and who receives."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

#: The unit that is no cell's.
PLATFORM = "0"


def joined(parts: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """One document of units: objects hold what any of them holds, lists hold what all of them hold.

    The units' own lists and objects are used up.
    """
    document: dict[str, Any] = {}
    for part in parts:
        _join(document, part)
    return document


def _join(into: dict[str, Any], part: dict[str, Any]) -> None:
    for key, value in part.items():
        known = into.get(key)
        if isinstance(known, dict) and isinstance(value, dict):
            _join(known, value)
        elif isinstance(known, list) and isinstance(value, list):
            known.extend(value)
        else:
            into[key] = value
