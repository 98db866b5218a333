"""What a controller begins under its lease, and what it leaves to whoever comes next. No cluster is asked."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from dataplane.controller.lease import VERSION, Lease
from dataplane.controller.places import BEGUN, Places
from dataplane.drivers.interface import CellState, CellStatus, PlacedCell
from dataplane.drivers.kubernetes.api import Object, failure

PLACE = {
    "location": "cell-7-00000000",
    "number": 7,
    "tenant": "acme",
    "project": "shop",
    "environment": "production",
    "wanted": True,
    "asked": 1,
    "quota": [1, 1, 1],
    "pull": "",
}


class Driver:
    """Calls in their order; ``during`` is what happens while one goes on."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.during: dict[str, Callable[[], Any]] = {}

    def _call(self, name: str, status: CellStatus | None) -> Any:
        self.calls.append(name)
        self.during.get(name, lambda: None)()
        return status

    def grant(self, cell: PlacedCell) -> CellStatus | None:
        return self._call("grant", None)

    def status(self, cell: PlacedCell) -> CellStatus:
        return self._call("status", CellStatus(CellState.DRIFTED))

    def ensure(self, cell: PlacedCell) -> CellStatus:
        return self._call("ensure", CellStatus(CellState.READY, 1))

    def reports(self, cell: PlacedCell, before: dict[str, str]) -> list[dict[str, Any]]:
        return []


class Stage:
    def __init__(self) -> None:
        self.driver, self.held = Driver(), True
        self.places = Places(lambda: self.driver, lambda: self.held, self.driver.grant)  # type: ignore[arg-type, return-value]
        self.places.give([PLACE], {})

    def work(self) -> list[str]:
        self.places.step()
        end = time.monotonic() + 5
        while not self.places.idle():
            assert time.monotonic() < end
            time.sleep(0.01)
        return self.driver.calls


@pytest.fixture
def stage() -> Iterator[Stage]:
    made = Stage()
    yield made
    made.places.stop()


@pytest.mark.parametrize("last", ["grant", "status"])
def test_each_call_begins_only_while_the_lease_is_good_for_it(stage: Stage, last: str) -> None:
    """One that takes its whole time leaves none for the next: by then another controller may be at work."""
    stage.driver.during[last] = lambda: setattr(stage, "held", False)
    assert stage.work()[-1] == last
    assert not stage.places.said() and not stage.places.problems(), "nothing was found out and nothing failed"
    stage.held = True
    stage.driver.during.clear()
    assert stage.work()[-3:] == ["grant", "status", "ensure"], "it is begun anew"
    assert stage.places.said()[0]["state"] == "ready"


def test_what_is_changed_comes_before_looks_at_what_is_ready(stage: Stage) -> None:
    """However many places there are, all due at once as when the lease is taken."""
    order: list[int] = []
    stage.places._grant = lambda cell: order.append(cell.number)
    everything = [{**PLACE, "location": f"cell-{n}-00000000", "number": n} for n in range(1, 101)]
    stage.places.give(everything, {})

    def rounds() -> None:
        while any(place.waits(time.monotonic()) for place in stage.places._places.values()):
            stage.work()

    rounds()
    assert sorted(order) == list(range(1, 101))
    order.clear()
    for place in stage.places._places.values():
        place.due = 0.0
    stage.places.step()
    assert sum(place.busy for place in stage.places._places.values()) <= BEGUN
    stage.places.give([*everything[:-1], {**everything[-1], "asked": 2}], {})
    rounds()
    assert 100 in order[: 2 * BEGUN]


def test_who_ends_waits_for_the_call_that_goes_on_and_for_no_other(stage: Stage) -> None:
    begun, ends = threading.Event(), threading.Event()

    def going_on() -> None:
        begun.set()
        ends.wait(5)

    stage.driver.during["status"] = going_on
    stage.places.step()
    assert begun.wait(5)
    stopping = threading.Thread(target=stage.places.stop)
    stopping.start()
    stopping.join(0.1)
    assert stopping.is_alive()
    ends.set()
    stopping.join(5)
    assert stage.driver.calls == ["grant", "status"]


class Raced:
    """An API server on which somebody else renews between the look and the write."""

    def __enter__(self) -> Raced:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def get(self, version: str, kind: str, namespace: str, name: str) -> Object:
        metadata = {"name": name, "namespace": namespace, "resourceVersion": "1"}
        return {"apiVersion": VERSION, "kind": "Lease", "metadata": metadata, "spec": {"holderIdentity": ""}}

    def replace(self, document: Object) -> Object:
        raise failure(409, "the object has been modified")


def test_who_comes_second_to_the_lease_isnt_in_trouble() -> None:
    lease = Lease(Raced, "cytoplane", "two")  # type: ignore[arg-type]
    assert not lease.try_once()
    assert not lease.held
