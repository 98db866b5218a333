"""Names that were asked for in vain, counted and handed to the agent, which reports them.

One way and without an answer: a resolver never waits for an agent that is away. What an asker can make
of it is bounded, so that nobody fills somebody's records with names.
"""

from __future__ import annotations

import json
import socket
from collections import Counter
from pathlib import Path

#: Different names of one asker in one report; more are counted together.
MOST_NAMES = 30
OTHERS = "(more names)"
LONGEST_NAME = 253
#: Counts in one datagram: below what the agent reads, however many characters are escaped.
_PIECE = 40


def path_in(folder: Path) -> Path:
    """The agent's socket in the resolver's folder."""
    return folder / "denials.sock"


class Denials:
    """Counts until ``send``."""

    def __init__(self, path: Path) -> None:
        self._path = path
        #: By (identity, whether it was answered for the record all the same).
        self._counts: dict[tuple[int, bool], Counter[str]] = {}

    def note(self, identity: int, name: str, audited: bool = False) -> None:
        """Somebody asked for a name that it may not reach, or, in audit, for one that it doesn't declare."""
        names = self._counts.setdefault((identity, audited), Counter())
        plain = name.rstrip(".").lower()[:LONGEST_NAME]
        names[plain if plain in names or len(names) < MOST_NAMES else OTHERS] += 1

    def send(self) -> None:
        """Hand over what was counted; it is kept while nobody listens."""
        rows = [
            (identity, name, count, audited)
            for (identity, audited), names in self._counts.items()
            for name, count in names.items()
        ]
        if not rows:
            return
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as client:
            client.setblocking(False)
            try:
                client.connect(str(self._path))
                for first in range(0, len(rows), _PIECE):
                    piece = rows[first : first + _PIECE]
                    client.send(json.dumps(piece).encode())
                    self._forget(piece)
            except OSError:
                return

    def _forget(self, rows: list[tuple[int, str, int, bool]]) -> None:
        for identity, name, _, audited in rows:
            names = self._counts[identity, audited]
            del names[name]
            if not names:
                del self._counts[identity, audited]
