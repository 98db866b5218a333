"""A controller that holds the lease anew makes nothing of what it knew before: another one has worked meanwhile."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from dataplane.agent.state import State
from dataplane.controller.controller import Controller
from dataplane.controller.lease import VERSION, Lease
from dataplane.drivers.interface import PlacedCell
from dataplane.drivers.kubernetes.api import Object
from infra.config import Config
from tests.dataplane.controller.test_places import PLACE, Driver

WANTED = {**PLACE, "location": "cell-7-00000000"}


def unit(replica: str) -> dict[str, Any]:
    return {"boundary": {}, "endpoints": [{"id": replica, "process": {}}]}


class Held:
    """A lease that is held as often as it is said."""

    held, term = True, 1


class Control:
    """The control plane: one cell, whose replica is another one with each generation."""

    enrolled = True

    def __init__(self) -> None:
        self.generation, self.away = 1, False
        self.waits: list[float] = []
        self.told: list[dict[str, Any]] = []

    def get(self, path: str, generation: int, mark: str, wait: float) -> dict[str, Any] | None:
        if self.away:
            raise OSError("away")
        self.waits.append(wait)
        if generation == self.generation:
            return None
        units = {"7": unit(f"r{self.generation}")}
        return {
            "base": 0,
            "removed": [],
            "units": units,
            "plane": 1,
            "generation": self.generation,
            "mark": "",
        }

    def post(self, path: str, document: dict[str, Any]) -> dict[str, Any]:
        if path == "/agent/report":
            self.told += document.get("replicas", [])
        return {"places": [WANTED], "agents": []}


class Stage(Controller):
    def __init__(self, folder: Path) -> None:
        super().__init__(Config(home=folder))
        self.hold, self.far, self.driver = Held(), Control(), Driver()
        self.made: list[list[str]] = []
        self.lease, self.control = self.hold, self.far  # type: ignore[assignment]
        self.places._driver = lambda: self.driver  # type: ignore[assignment, return-value]
        self.places._grant = self._seen  # type: ignore[assignment]

    def _seen(self, cell: PlacedCell) -> None:
        self.made.append([endpoint["id"] for endpoint in cell.endpoints])

    def work(self) -> list[list[str]]:
        """With which replicas the cell is made now."""
        self.made.clear()
        self.places.step()
        end = time.monotonic() + 5
        while not self.places.idle():
            assert time.monotonic() < end
            time.sleep(0.01)
        return list(self.made)


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path)


def test_nothing_is_made_before_desired_state_is_there(stage: Stage) -> None:
    """The other loop may be first: without the cells' units it would empty them."""
    stage._ask(stage._may)
    assert stage.work() == []
    stage._follow()
    assert stage.work() == [["r1"]]


def test_what_was_wanted_in_an_earlier_term_is_never_made_again(stage: Stage) -> None:
    stage._follow()
    assert stage.work() == [["r1"]]
    stage.hold.held = False
    stage._follow()
    # Another controller brings the cell further, and ends.
    stage.far.generation = 2
    stage.hold.held, stage.hold.term = True, 2
    stage._ask(stage._may)
    stage.places._places["cell-7-00000000"].due = 0.0
    assert stage.work() == []
    stage.far.away = True
    with pytest.raises(OSError):
        stage._follow()
    assert stage.work() == []
    stage.far.away = False
    stage._follow()
    assert stage.work() == [["r2"]]


def test_with_nothing_new_it_begins_at_once_and_then_waits_for_more(stage: Stage) -> None:
    stage._state = State(1, 1, "", {"7": json.dumps(unit("r1")).encode()})
    stage._follow()
    assert stage.work() == [["r1"]]
    stage._follow()
    assert stage.far.waits[0] == 0 < stage.far.waits[1]


def test_how_replicas_are_is_told_anew(stage: Stage) -> None:
    """Another one may have told something else since."""
    report = {"id": "r1", "phase": "healthy"}
    for told in (1, 1, 2):
        stage.hold.term = told
        stage._follow()
        stage.places._replicas["r1"] = report
        stage._report()
        assert stage.far.told == [report] * told


class Kept:
    """An API server with one lease."""

    record: Object | None = None

    def __enter__(self) -> Kept:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def get(self, *_: str) -> Object | None:
        return self.record

    def create(self, document: Object) -> bool:
        self.record = {**document, "metadata": {**document["metadata"], "resourceVersion": "1"}}
        return True

    replace = create


def test_a_term_begins_when_the_lease_comes_from_somebody_else_and_not_with_each_renewal() -> None:
    api = Kept()
    lease = Lease(lambda: api, "cytoplane", "one")  # type: ignore[arg-type, return-value]
    for term in (1, 1):
        assert lease.try_once()
        assert lease.term == term
    for holder, term in (("", 2), ("one", 2)):
        assert api.record is not None
        api.record["spec"]["holderIdentity"] = holder
        assert lease.try_once()
        assert lease.term == term
    # The same pod, begun again, knows nothing of what it did before.
    again = Lease(lambda: api, "cytoplane", "one")  # type: ignore[arg-type, return-value]
    assert again.try_once()
    assert (again.term, VERSION) == (1, "coordination.k8s.io/v1")
