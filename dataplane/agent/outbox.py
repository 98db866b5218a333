"""What waits to be reported: lines and flows, handed out in batches that the control plane takes.

A batch that can't be delivered comes back to where it was; one that is refused is dropped, with what
it held counted, so that nothing that somebody's process prints can hold up everybody's reports.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterable
from typing import Any

Item = dict[str, Any]
#: Encoded bytes of a batch: well below what the control plane accepts in one request.
BATCH_BYTES = 512 * 1024
#: Of each kind; beyond it the oldest go.
MOST_WAITING = 20000


class Outbox:
    """One thread fills and empties it."""

    def __init__(self) -> None:
        # Flows first: what was refused matters more than what was printed.
        self._waiting: dict[str, deque[Item]] = {"flows": deque(), "logs": deque()}
        self._out: dict[str, list[Item]] = {}
        #: Items that were given up.
        self.lost = 0

    def add(self, kind: str, items: Iterable[Item]) -> None:
        """Put items of ``flows`` or ``logs`` in line."""
        line = self._waiting[kind]
        line.extend(items)
        while len(line) > MOST_WAITING:
            line.popleft()
            self.lost += 1

    def __len__(self) -> int:
        return sum(map(len, self._waiting.values())) + sum(map(len, self._out.values()))

    def batch(self) -> dict[str, list[Item]]:
        """The next batch; empty if nothing waits. ``delivered``, ``returned`` or ``refused`` must follow."""
        assert not self._out, "a batch is underway"
        room = BATCH_BYTES
        for kind, line in self._waiting.items():
            taken = self._out.setdefault(kind, [])
            while line and room > 0:
                item = line.popleft()
                taken.append(item)
                room -= len(json.dumps(item))
        if not any(self._out.values()):
            self._out = {}
        return self._out

    def delivered(self) -> None:
        self._out = {}

    def returned(self) -> None:
        """It couldn't be delivered: it goes first the next time."""
        out, self._out = self._out, {}
        for kind, items in out.items():
            self._waiting[kind].extendleft(reversed(items))

    def refused(self) -> None:
        """It will never be taken."""
        self.lost += sum(map(len, self._out.values()))
        self._out = {}
