"""Ends of runs that are told after the last of their lines, but not much later than they came."""

from __future__ import annotations

import time
from collections.abc import Callable

#: Longer an end isn't kept back: lines of all of the node's processes go one way, and somebody who prints
#: without pause mustn't have others' runs seem to go on.
SECONDS = 5.0


class Withheld:
    """One thread asks it; another one may have it forget."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        #: Replica → when its end was seen first.
        self._since: dict[str, float] = {}

    def waits(self, replica: str, more: bool) -> bool:
        """Whether the end of a run has to wait. ``more``: lines of it may still be on their way."""
        if not more:
            self.forget(replica)
            return False
        return self._clock() - self._since.setdefault(replica, self._clock()) < SECONDS

    def forget(self, replica: str) -> None:
        """It is gone."""
        self._since.pop(replica, None)
