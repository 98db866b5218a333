"""Declared cells as plain values, to be kept as JSON, and back."""

from __future__ import annotations

import types
import typing
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Any, TypeVar

from cells.boundary import model

T = TypeVar("T")


def plain(value: Any) -> Any:
    """The value of lists, objects, texts and numbers; what a field has by default is left out."""
    if is_dataclass(value):
        return {
            name: plain(own)
            for name, default, _ in _shape(type(value))  # type: ignore[arg-type]
            if (own := getattr(value, name)) != default
        }
    return [plain(item) for item in value] if isinstance(value, tuple) else value


def restore(kind: type[T], document: dict[str, Any]) -> T:
    """What ``plain`` made a document of. Raises ``LookupError`` or ``TypeError`` for anything else."""
    found = {}
    for name, _, inner in _shape(kind):  # type: ignore[arg-type]
        if name in document:
            found[name] = _restored(inner, document[name])
    return kind(**found)


def _restored(inner: type | None, value: Any) -> Any:
    if isinstance(value, list):
        return tuple(_restored(inner, item) for item in value)
    return restore(inner, value) if inner is not None and isinstance(value, dict) else value


@cache
def _shape(kind: type) -> tuple[tuple[str, Any, type | None], ...]:
    """(name, default, class of the values in it) of each field."""
    hints = typing.get_type_hints(kind, vars(model))
    return tuple((field.name, field.default, _inner(hints[field.name])) for field in fields(kind))  # type: ignore[arg-type]


def _inner(hint: Any) -> type | None:
    if is_dataclass(hint):
        return hint  # type: ignore[return-value]
    arguments = typing.get_args(hint) if isinstance(hint, types.UnionType | types.GenericAlias) else ()
    return next((found for item in arguments if (found := _inner(item)) is not None), None)
