"""How busy replicas are, for those whose number the control plane has follow it.

Counters are read now and then and what they grew by is reported, as cores used and requests a second. What
can't be known is left out: a counter that began anew, one that wasn't there before, a gateway that is silent.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dataplane.agent import groups

CPU, REQUESTS = "cpu", "requests"
#: Less time between two looks says too little.
LEAST_SECONDS = 2.0
#: Gateway's own count of what it gave to a backend, in the lines that Envoy tells of its clusters.
_COUNT = "rq_total"


@dataclass(frozen=True)
class Measured:
    """A replica of this node: what is asked of it, the address that gateways call, its control group."""

    what: frozenset[str]
    address: str
    group: Path | None


@dataclass(frozen=True)
class _Counted:
    at: float
    group: Path | None
    processor: float | None
    requests: int | None


def requests(text: str) -> dict[str, int]:
    """Address → requests that a gateway has given to it, of what Envoy says of its clusters.

    Each is counted by the gateway that calls the replica itself; those that go by another node's are its.
    """
    found: dict[str, int] = {}
    for line in text.splitlines():
        # cluster::address:port::name::value; addresses of version 6 are in brackets.
        _, _, rest = line.partition("::")
        place, _, name = rest.rpartition("::")[0].rpartition("::")
        if name != _COUNT or not place.rpartition(":")[2].isdigit():
            continue
        address = place.rpartition(":")[0].strip("[]")
        value = line.rpartition("::")[2]
        if value.isdigit():
            found[address] = found.get(address, 0) + int(value)
    return found


class Meter:
    """One thread reads it. ``ask`` gives Envoy's text about its clusters, or raises ``OSError``."""

    def __init__(self, ask: Callable[[], str], clock: Callable[[], float] = time.monotonic) -> None:
        self._ask, self._clock = ask, clock
        self._before: dict[str, _Counted] = {}

    def read(self, replicas: Mapping[str, Measured]) -> list[dict[str, Any]]:
        """What each replica did since the last time; nothing of those that weren't there then."""
        counted = self._requests(replicas)
        reports = []
        now: dict[str, _Counted] = {}
        for replica, measured in replicas.items():
            before = self._before.get(replica)
            at = self._clock()
            if before is not None and at - before.at < LEAST_SECONDS:
                now[replica] = before
                continue
            processor = groups.seconds(measured.group) if measured.group and CPU in measured.what else None
            # Whom no gateway calls has no line there, and gets nothing.
            got = counted.get(measured.address, 0) if counted is not None else None
            now[replica] = current = _Counted(at, measured.group, processor, got)
            if before is not None and (report := _since(before, current)):
                reports.append({"id": replica, **report})
        self._before = now
        return reports

    def _requests(self, replicas: Mapping[str, Measured]) -> dict[str, int] | None:
        """None: nobody wants to know, or nobody says."""
        if not any(REQUESTS in measured.what for measured in replicas.values()):
            return None
        try:
            return requests(self._ask())
        except OSError:
            return None


def _since(before: _Counted, now: _Counted) -> dict[str, float]:
    """What grew, for each second."""
    found: dict[str, float] = {}
    passed = now.at - before.at
    if now.processor is not None and before.processor is not None and now.group == before.group:
        used = now.processor - before.processor
        if used >= 0:
            found[CPU] = round(used / passed, 4)
    if now.requests is not None and before.requests is not None and now.requests >= before.requests:
        found[REQUESTS] = round((now.requests - before.requests) / passed, 3)
    return found
