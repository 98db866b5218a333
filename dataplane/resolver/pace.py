"""How many questions of one asker are looked at in a second.

All workloads of a node share one process: who asks without end is to cost the others no more than the time in
which its datagrams are read and dropped.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable

log = logging.getLogger("cytoplane.resolver")
#: Questions in a second, and at once after a pause. Programs that don't remember answers stay far below.
RATE, BURST = 1000, 2000


class Pace:
    """By address, which the programs on the asker's veth have made unforgeable."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        #: Asker → until when what it asked is paid for.
        self._until: dict[str, float] = {}
        self._dropped: Counter[str] = Counter()

    def admits(self, asker: str) -> bool:
        """Whether one more is looked at."""
        now = self._now()
        until = max(self._until.get(asker, now), now)
        if until - now > (BURST - 1) / RATE:
            self._dropped[asker] += 1
            return False
        self._until[asker] = until + 1 / RATE
        return True

    def tidy(self) -> None:
        """Forget who is quiet; write down who wasn't."""
        now = self._now()
        self._until = {asker: until for asker, until in self._until.items() if until > now}
        dropped, self._dropped = self._dropped, Counter()
        for asker, number in dropped.items():
            log.warning("%s questions of %s weren't looked at: it asks too fast", number, asker)
