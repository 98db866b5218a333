"""Names of the outside world: which pattern covers a name, and what it opens."""

from __future__ import annotations

from collections.abc import Iterable

from cells.boundary.model import Connection, NameEntry

#: Of a cell in audit: any name, whatever port; nothing is opened for it.
ANY_NAME: NameEntry = ("*", 0, 0, 0)


def matches(pattern: str, name: str) -> bool:
    """Whether a declared pattern covers a name, both in lower case without a dot at the end.

    ``*.example.com`` covers names with exactly one label more, as in certificates: neither
    ``example.com`` nor ``a.b.example.com``.
    """
    if pattern == ANY_NAME[0]:
        return True
    if pattern.startswith("*."):
        first, _, rest = name.partition(".")
        return bool(first) and rest == pattern[2:]
    return name == pattern


def grants(entries: Iterable[NameEntry], name: str) -> dict[tuple[int, int], int]:
    """(port, protocol) → rule that a name opens. Of two rules the older one counts."""
    found: dict[tuple[int, int], int] = {}
    for pattern, port, protocol, rule in entries:
        if port and matches(pattern, name):
            found[port, protocol] = min(rule, found.get((port, protocol), rule))
    return found


def entry(connection: Connection) -> NameEntry:
    """What a connection to a name opens."""
    external = connection.external
    assert external is not None
    return (external.name, external.port, external.number, connection.rule)
