"""What each asker may resolve: a file that the agent replaces as a whole."""

from __future__ import annotations

import ipaddress
import json
import logging
import re
from dataclasses import dataclass, field
from pathlib import Path

from cells.boundary.names import ANY_NAME, matches

log = logging.getLogger("cytoplane.resolver")
#: Names may be written with it.
SUFFIX = ".cy.internal"
DECLARED, AUDITED = "declared", "audited"
#: What a name of the outside world may look like, whatever a wildcard covers.
_NAME = re.compile(
    r"(?=.{1,253}\Z)([a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?\.)+[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\Z"
)


@dataclass(frozen=True)
class _Content:
    askers: dict[str, str] = field(default_factory=dict)
    names: dict[str, dict[str, list[str]]] = field(default_factory=dict)
    external: dict[str, list[str]] = field(default_factory=dict)
    stamps: dict[str, int] = field(default_factory=dict)
    servers: tuple[str, ...] = ()


class Table:
    """Reads the file again when it was replaced. A file that can't be read keeps the last one."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stamp: tuple[int, int] | None = None
        self._content = _Content()

    def refresh(self) -> None:
        try:
            status = self._path.stat()
            stamp = (status.st_mtime_ns, status.st_ino)
            if stamp == self._stamp:
                return
            text = self._path.read_bytes()
        except OSError:
            return  # before the first table, or before the agent has let us read this one
        self._stamp = stamp
        try:
            self._content = _read(text)
        except (ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
            log.warning("the table can't be read, the last one stays in force: %s", error)

    @property
    def servers(self) -> tuple[str, ...]:
        """Upstream servers for names of the outside world."""
        return self._content.servers

    def lookup(self, asker: str, name: str) -> list[str] | None:
        """Addresses of a name for an asker; None where the asker isn't known at all."""
        identity = self._identity(asker)
        return None if identity is None else self._content.names.get(identity, {}).get(self.plain(name), [])

    def external(self, asker: str, name: str) -> str:
        """How an asker gets to a name of the outside world: by a declaration, for the record, or not at all ("")."""
        wanted = name.rstrip(".").lower()
        patterns = self._content.external.get(self._identity(asker) or "", ())
        if not patterns or wanted.endswith((SUFFIX, ".arpa")) or not _NAME.match(wanted):
            return ""
        if any(pattern != ANY_NAME[0] and matches(pattern, wanted) for pattern in patterns):
            return DECLARED
        return AUDITED if ANY_NAME[0] in patterns else ""

    def stamp(self, asker: str) -> int:
        """Another number than before if the agent closed something of the asker's that it may still know."""
        return self._content.stamps.get(self._identity(asker) or "", 0)

    def identity(self, asker: str) -> int:
        """Who asks; 0 for nobody that is known."""
        return int(self._identity(asker) or 0)

    def _identity(self, asker: str) -> str | None:
        address = ipaddress.ip_address(asker.partition("%")[0])
        mapped = getattr(address, "ipv4_mapped", None)
        return self._content.askers.get(str(mapped or address))

    @staticmethod
    def plain(name: str) -> str:
        """A name as the table has it: lower case, without the platform's suffix."""
        return name.rstrip(".").lower().removesuffix(SUFFIX)


def _read(text: bytes) -> _Content:
    document = json.loads(text)
    return _Content(
        askers={str(a): str(int(i)) for a, i in document["askers"].items()},
        names={
            str(identity): {str(name): [str(a) for a in pair] for name, pair in known.items()}
            for identity, known in document["names"].items()
        },
        external={
            str(int(identity)): [str(pattern) for pattern in patterns]
            for identity, patterns in document.get("external", {}).items()
        },
        stamps={str(int(i)): int(stamp) for i, stamp in document.get("stamps", {}).items()},
        servers=tuple(str(ipaddress.ip_address(server)) for server in document.get("servers", ())),
    )
