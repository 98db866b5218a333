"""The time that one call of the driver may take, so that whoever calls knows how long to keep others away."""

from __future__ import annotations

import time

from dataplane.drivers.interface import Unreachable

#: Seconds; the last request may take its own time-out beyond.
CALL = 60.0


class Budget:
    """Runs from when it is made."""

    def __init__(self, seconds: float = CALL) -> None:
        self._end = time.monotonic() + seconds

    def left(self) -> float:
        """Seconds that are left. Raises ``Unreachable`` if there are none."""
        left = self._end - time.monotonic()
        if left <= 0:
            raise Unreachable("The cluster is too slow; the next try goes on from there.")
        return left
