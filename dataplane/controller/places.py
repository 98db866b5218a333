"""Cells' places on the cluster: several at once, one call for each place at a time."""

from __future__ import annotations

import hashlib
import heapq
import json
import logging
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeVar

from dataplane.drivers.interface import CellState, CellStatus, Driver, DriverError, PlacedCell, Quota

log = logging.getLogger("cytoplane.controller")
WORKERS = 4
#: Places that are worked on or next: what is changed mustn't come behind a look at each of thousands.
BEGUN = 2 * WORKERS
#: Seconds until a place is looked at again: one that is ready, one that is going; the first and the longest
#: pause after a failure. As workers have them (``cells.provisioning.work``).
CHECK, GOING, FIRST_RETRY, LAST_RETRY = 120.0, 5.0, 5.0, 300.0
#: Between two looks at how replicas are: while some aren't well, and otherwise.
UNWELL, QUIET = 1.0, 15.0
_T = TypeVar("_T")


class NotAnyMore(Exception):
    """Another controller may work by now, or this one ends: what was begun is left for whoever comes."""


@dataclass
class _Place:
    """What is wanted of it and what was done."""

    document: dict[str, Any]
    unit: bytes
    digest: str
    #: Digest of what it was brought to last.
    done: str = ""
    due: float = 0.0
    busy: bool = False
    attempts: int = 0
    look_due: float = 0.0
    looking: bool = False
    #: Replica → the phase that was reported last.
    phases: dict[str, str] = field(default_factory=dict)

    @property
    def settled(self) -> bool:
        """Whether it was brought to what is wanted of it now."""
        return self.done == self.digest

    def waits(self, now: float) -> bool:
        """Whether something is to be done and nobody is at it."""
        return not self.busy and (self.due <= now or not self.settled and not self.attempts)

    def cell(self) -> PlacedCell:
        """As the driver knows it. Raises ``ValueError`` for what no cell can be."""
        wanted = self.document
        endpoints = json.loads(self.unit).get("endpoints", []) if wanted["wanted"] and self.unit else []
        return PlacedCell(
            number=wanted["number"],
            location=wanted["location"],
            tenant=wanted["tenant"],
            project=wanted["project"],
            environment=wanted["environment"],
            quota=Quota(*wanted["quota"]),
            endpoints=tuple(endpoints),
            pull=wanted["pull"],
        )


class Places:
    """``driver`` makes one that is signed in now; nothing begins unless ``may`` says so.

    ``grant`` is called before each call for a place that is wanted: a status from it is all there is to say.
    """

    def __init__(
        self,
        driver: Callable[[], Driver],
        may: Callable[[], bool],
        grant: Callable[[PlacedCell], CellStatus | None],
    ) -> None:
        self._driver, self._may, self._grant = driver, may, grant
        self._stopped = False
        self._places: dict[str, _Place] = {}
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(WORKERS, thread_name_prefix="place")
        self._lookers = ThreadPoolExecutor(2, thread_name_prefix="look")
        #: Location → what is to be said of it; and of replicas.
        self._said: dict[str, dict[str, Any]] = {}
        self._replicas: dict[str, dict[str, Any]] = {}

    def give(self, wanted: list[dict[str, Any]], units: Mapping[str, bytes]) -> None:
        """What should be. A place that isn't named any more is left alone: only who says so takes one away."""
        with self._lock:
            fresh: dict[str, _Place] = {}
            for document in wanted:
                location, unit = str(document["location"]), units.get(str(document["number"]), b"")
                digest = hashlib.sha256(json.dumps(document, sort_keys=True).encode() + unit).hexdigest()
                place = self._places.get(location) or _Place(document, unit, digest)
                if place.digest != digest:
                    place.document, place.unit, place.digest = document, unit, digest
                    place.attempts, place.due, place.look_due = 0, 0.0, 0.0
                fresh[location] = place
            for location in self._places.keys() - fresh.keys():
                for replica in self._places[location].phases:
                    self._replicas.pop(replica, None)
            self._places = fresh

    def forget(self) -> None:
        """Know of nothing: somebody else has worked meanwhile."""
        with self._lock:
            self._places, self._said, self._replicas = {}, {}, {}

    def step(self) -> None:
        """Begin what is due."""
        if self._stopped or not self._may():
            return
        now = time.monotonic()
        with self._lock:
            room = BEGUN - sum(place.busy for place in self._places.values())
            waiting = [place for place in self._places.values() if place.waits(now)]
            for place in heapq.nsmallest(room, waiting, key=lambda place: (place.settled, place.due)):
                place.busy = True
                self._pool.submit(self._work, place)
            for place in self._places.values():
                if not place.looking and place.done and place.look_due <= now and place.document["wanted"]:
                    place.looking = True
                    self._lookers.submit(self._look, place)

    def _work(self, place: _Place) -> None:
        with self._lock:
            digest = place.digest
            location = place.document["location"]
        try:
            cell = place.cell()
            status = self._made(cell) if place.document["wanted"] else self._call(self._driver().remove, cell)
            ready = status.state in (CellState.READY, CellState.ABSENT)
            self._done(place, digest, CHECK if ready else GOING)
            self._say(location, _told(status))
        except NotAnyMore:
            log.info("%s is left as it is", location)
        except (DriverError, ValueError, LookupError, TypeError) as error:
            passing = isinstance(error, DriverError) and error.passing
            code = error.code if isinstance(error, DriverError) else "rejected"
            wait = min(FIRST_RETRY * 2 ** min(place.attempts, 8), LAST_RETRY) if passing else LAST_RETRY
            log.warning("%s: %s", location, error)
            self._done(place, digest, wait, failed=True)
            self._say(location, {"state": "failed", "problems": [str(error)], "error": code})
        except Exception as error:
            log.exception("%s can't go on", location)
            self._done(place, digest, LAST_RETRY, failed=True)
            problem = f"Something failed in the plane's controller ({type(error).__name__}); its log has it."
            self._say(location, {"state": "failed", "problems": [problem], "error": "internal"})
        finally:
            with self._lock:
                place.busy = False

    def _made(self, cell: PlacedCell) -> CellStatus:
        waiting = self._call(self._grant, cell)
        if waiting is not None:
            return waiting
        driver = self._driver()
        seen = self._call(driver.status, cell)
        if seen.state == CellState.READY:
            return seen
        if seen.state == CellState.DRIFTED:
            log.warning("%s drifted: %s", cell.location, " ".join(seen.problems))
        return self._call(driver.ensure, cell)

    def _call(self, call: Callable[[PlacedCell], _T], cell: PlacedCell) -> _T:
        """One call of the driver's, or what takes as long: the lease is good for one that begins under it."""
        if self._stopped or not self._may():
            raise NotAnyMore
        return call(cell)

    def _done(self, place: _Place, digest: str, wait: float, *, failed: bool = False) -> None:
        with self._lock:
            place.attempts = place.attempts + 1 if failed else 0
            if not failed:
                place.done, place.look_due = digest, 0.0
            if place.digest == digest:
                place.due = time.monotonic() + wait

    def _look(self, place: _Place) -> None:
        pause = UNWELL
        try:
            cell = place.cell()
            reports = self._driver().reports(cell, place.phases)
            with self._lock:
                wanted = {endpoint["id"] for endpoint in cell.endpoints}
                for gone in place.phases.keys() - wanted:
                    self._replicas.pop(gone, None)
                place.phases = {key: phase for key, phase in place.phases.items() if key in wanted}
                for report in reports:
                    place.phases[report["id"]] = report["phase"]
                    self._replicas[report["id"]] = report
            ends = any(e["process"].get("restart") == "never" for e in cell.endpoints)
            if not ends and all(report["phase"] == "healthy" for report in reports):
                pause = QUIET
        except (DriverError, ValueError) as error:
            log.warning("%s can't be looked at: %s", place.document["location"], error)
            pause = FIRST_RETRY
        except Exception:
            log.exception("%s can't be looked at", place.document["location"])
            pause = FIRST_RETRY
        finally:
            with self._lock:
                place.looking = False
                place.look_due = time.monotonic() + pause

    def _say(self, location: str, told: dict[str, Any]) -> None:
        with self._lock:
            self._said[location] = {"location": location, **told}

    def said(self) -> list[dict[str, Any]]:
        """What is to be said of places; ``again`` gives back what couldn't be."""
        with self._lock:
            found, self._said = list(self._said.values()), {}
        return found

    def again(self, reports: list[dict[str, Any]]) -> None:
        """What wasn't taken is said again, unless there is something newer."""
        with self._lock:
            for report in reports:
                self._said.setdefault(report["location"], report)

    def replicas(self) -> list[dict[str, Any]]:
        """How replicas were at the last look."""
        with self._lock:
            return list(self._replicas.values())

    def problems(self) -> list[str]:
        """Sentences about places that can't be made."""
        with self._lock:
            failing = [place.document["location"] for place in self._places.values() if place.attempts]
        return [f"{len(failing)} places can't be made, {failing[0]} first"] if failing else []

    def idle(self) -> bool:
        """Whether nothing is going on."""
        with self._lock:
            return not any(place.busy or place.looking for place in self._places.values())

    def stop(self) -> None:
        """Wait for the calls that go on, begin nothing more."""
        self._stopped = True
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._lookers.shutdown(wait=True, cancel_futures=True)


def _told(status: CellStatus) -> dict[str, Any]:
    state = "drifted" if status.state == CellState.INTERRUPTED else status.state.value
    return {"state": state, "problems": list(status.problems), "revision": status.revision}
