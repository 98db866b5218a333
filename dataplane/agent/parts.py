"""Units of desired state as an agent keeps them, and all of them together, part by part.

Most of a node's desired state is looked at once and then only when it changes. So a unit stays the JSON
that it was written as, each of its parts on a line of its own: whoever wants one part of all units finds
the lines and reads those alone, and what was read is gone when it isn't used any more.
"""

from __future__ import annotations

import json
from collections.abc import Callable, ItemsView, Iterator, Mapping
from hashlib import blake2b
from typing import Any

from dataplane.desired import joined

#: Below it are the platform's own identities, whose rules several units make up together.
FIRST_OF_CELLS = 256
_BEGIN = b'{"boundary":{\n'
#: Where a unit has the platform's identities, apart from its cell's.
_IDENTITIES, _SHARED = "identities", "platform_identities"

Units = Mapping[str, bytes]


def platforms(identity: int) -> bool:
    """Whether an identity is the platform's own: its rules are looked at always."""
    return identity < FIRST_OF_CELLS


def encode(unit: dict[str, Any]) -> bytes:
    """A unit as it is kept: JSON, parts of the boundary in lines, all others in lines that are indented."""
    boundary = dict(unit["boundary"])
    if _IDENTITIES in boundary:
        both = boundary[_IDENTITIES]
        boundary[_SHARED] = {text: entry for text, entry in both.items() if platforms(int(text))}
        boundary[_IDENTITIES] = {text: entry for text, entry in both.items() if not platforms(int(text))}
    inner = ",\n".join(f'"{name}":{_text(value)}' for name, value in sorted(boundary.items()))
    outer = "".join(
        f',\n "{name}":{_text(value)}' for name, value in sorted(unit.items()) if name != "boundary"
    )
    return _BEGIN + f"{inner}\n}}{outer}\n}}".encode()


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def decode(unit: bytes) -> dict[str, Any]:
    """What ``encode`` was given. Units that others wrote are read as they are."""
    found = json.loads(unit)
    shared = found["boundary"].pop(_SHARED, None)
    if shared is not None:
        found["boundary"][_IDENTITIES] = {**shared, **found["boundary"].get(_IDENTITIES, {})}
    return found


def _line(unit: bytes, name: str, indent: str) -> bytes | None:
    """The JSON of a part of a unit; None if it has none."""
    if not unit.startswith(_BEGIN):
        return _foreign(unit, name, indent)
    key = f'\n{indent}"{name}":'.encode()
    # The first line has its line feed before it as well: it is the last of the beginning.
    start = unit.find(key, len(_BEGIN) - 1)
    if start < 0:
        return None
    end = unit.index(b"\n", start + len(key))
    found = unit[start + len(key) : end]
    return found.removesuffix(b",")


def _foreign(unit: bytes, name: str, indent: str) -> bytes | None:
    whole = decode(unit)
    apart: dict[str, Any] = {}
    if not indent:
        return _line(encode({"boundary": whole["boundary"]}), name, "")
    apart = {key: value for key, value in whole.items() if key != "boundary"}
    return _text(apart[name]).encode() if name in apart else None


def _names(unit: bytes, indent: str) -> Iterator[str]:
    """Names of a unit's parts."""
    if not unit.startswith(_BEGIN):
        whole = decode(unit)
        yield from (name for name in (whole if indent else whole["boundary"]) if name != "boundary")
        return
    key = f'\n{indent}"'.encode()
    start = unit.find(key, len(_BEGIN) - 1)
    while start >= 0:
        begin = start + len(key)
        name = unit[begin : unit.index(b'"', begin)].decode()
        yield _IDENTITIES if name == _SHARED else name
        start = unit.find(key, begin)


def identities(unit: bytes | None) -> dict[str, dict[str, Any]]:
    """Rules of the cell's identities of a unit."""
    raw = _line(unit, _IDENTITIES, "") if unit is not None else None
    return json.loads(raw) if raw else {}


class Identities(Mapping[str, dict[str, Any]]):
    """Identity → its rules, of all units. ``items`` reads one unit after the other, each once."""

    def __init__(self, units: Units) -> None:
        self._units = units
        self._all: dict[str, dict[str, Any]] | None = None

    def platforms(self) -> dict[str, dict[str, Any]]:
        """The platform's own, each put together from all units that have a part of it."""
        raw = [
            found for unit in self._units.values() if (found := _line(unit, _SHARED, "")) not in (None, b"{}")
        ]
        return joined(json.loads(b"[" + b",".join(raw) + b"]"))  # type: ignore[arg-type]

    def stream(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """All of them, without keeping any."""
        yield from self.platforms().items()
        for unit in self._units.values():
            yield from identities(unit).items()

    def _whole(self) -> dict[str, dict[str, Any]]:
        if self._all is None:
            self._all = dict(self.stream())
        return self._all

    def __getitem__(self, key: str) -> dict[str, Any]:
        return self._whole()[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._whole())

    def __len__(self) -> int:
        return len(self._whole())

    def items(self) -> ItemsView[str, dict[str, Any]]:
        return self._whole().items()


class Parts(Mapping[str, Any]):
    """Parts of all units by their names, each put together anew whenever it is asked for."""

    def __init__(self, units: Units, indent: str = "") -> None:
        self._units, self._indent = units, indent

    def __getitem__(self, name: str) -> Any:
        lines = [line for _, line in self.lines(name)]
        if not lines:
            raise KeyError(name)
        if name == _IDENTITIES and not self._indent:
            return Identities(self._units)
        # The empty ones say nothing but what kind it is.
        full = [line for line in lines if line not in (b"{}", b"[]")] or lines[:1]
        return joined({name: value} for value in json.loads(b"[" + b",".join(full) + b"]"))[name]

    def lines(self, name: str) -> Iterator[tuple[str, bytes]]:
        """Unit → its JSON of a part, of those that have it."""
        for number, unit in self._units.items():
            line = _line(unit, name, self._indent)
            if line is not None:
                yield number, line

    def stamp(self, *names: str) -> bytes:
        """Another value where these parts are others."""
        digest = blake2b(digest_size=16)
        for name in names:
            for number, line in self.lines(name):
                digest.update(b"%s %d " % (number.encode(), len(line)))
                digest.update(line)
        return digest.digest()

    def __iter__(self) -> Iterator[str]:
        names: dict[str, None] = {}
        for unit in self._units.values():
            names |= dict.fromkeys(_names(unit, self._indent))
        return iter(names)

    def __len__(self) -> int:
        return sum(1 for _ in self)


class Document(Mapping[str, Any]):
    """All of a generation. What it says of it costs nothing until somebody asks."""

    def __init__(self, plane: int, generation: int, units: Units) -> None:
        ordered = {number: units[number] for number in sorted(units, key=int)}
        self._outer = Parts(ordered, indent=" ")
        self._known: dict[str, Any] = {"plane": plane, "generation": generation, "boundary": Parts(ordered)}

    def __getitem__(self, name: str) -> Any:
        if name in self._known:
            return self._known[name]
        if name == "endpoints":
            return self._outer.get(name, [])
        return self._outer[name]

    def __iter__(self) -> Iterator[str]:
        return iter({**self._known, "endpoints": None, **dict.fromkeys(self._outer)})

    def __len__(self) -> int:
        return sum(1 for _ in self)


def stamp(boundary: Mapping[str, Any], *names: str) -> bytes | None:
    """Another value where these parts of a boundary are others; None where that isn't known without a look."""
    made: Callable[..., bytes] | None = getattr(boundary, "stamp", None)
    return made(*names) if made is not None else None
