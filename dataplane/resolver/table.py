"""What each asker may resolve: a file that the agent replaces as a whole."""

from __future__ import annotations

import ipaddress
import json
import logging
from pathlib import Path

log = logging.getLogger("cytoplane.resolver")
#: Names may be written with it.
SUFFIX = ".cy.internal"


class Table:
    """Reads the file again when it was replaced. A file that can't be read keeps the last one."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stamp: tuple[int, int] | None = None
        self._askers: dict[str, str] = {}
        self._names: dict[str, dict[str, list[str]]] = {}

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
            document = json.loads(text)
            askers = {str(a): str(int(i)) for a, i in document["askers"].items()}
            names = {
                str(identity): {str(name): [str(a) for a in pair] for name, pair in known.items()}
                for identity, known in document["names"].items()
            }
        except (ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
            log.warning("the table can't be read, the last one stays in force: %s", error)
            return
        self._askers, self._names = askers, names

    def lookup(self, asker: str, name: str) -> list[str] | None:
        """Addresses of a name for an asker; None where the asker isn't known at all."""
        identity = self._identity(asker)
        return None if identity is None else self._names.get(identity, {}).get(self.plain(name), [])

    def identity(self, asker: str) -> int:
        """Who asks; 0 for nobody that is known."""
        return int(self._identity(asker) or 0)

    def _identity(self, asker: str) -> str | None:
        address = ipaddress.ip_address(asker.partition("%")[0])
        mapped = getattr(address, "ipv4_mapped", None)
        return self._askers.get(str(mapped or address))

    @staticmethod
    def plain(name: str) -> str:
        """A name as the table has it: lower case, without the platform's suffix."""
        return name.rstrip(".").lower().removesuffix(SUFFIX)
