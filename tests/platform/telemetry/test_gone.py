"""A project that goes while nodes still tell of it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from django.db import connection, connections, transaction

from delivery.models import Replica
from delivery.serving import locked_cell
from projects import actions as projects
from projects.models import Cell, Project, Workload
from telemetry.actions import record_flows, record_logs
from telemetry.models import Edge, LogLine
from tests.factories import World
from tests.waiting import meanwhile


class Told:
    """What a node says of one cell, in both ways, and what becomes of that."""

    def __init__(self, world: World) -> None:
        self.world = world
        made = world.cell()
        world.deploy(made)
        self.cell = world.cell(made.project)
        identity = Workload.objects.get(cell=self.cell, component__name="web").identity
        self._flow = {
            "source": identity, "destination": 2, "remote": "198.51.100.1", "port": 443, "protocol": 6,
            "direction": 0, "allowed": False, "reason": "EGRESS", "packets": 1, "bytes": 60,
        }  # fmt: skip
        replica = Replica.objects.filter(workload__cell=self.cell, wanted="serve").first()
        assert replica is not None
        self._line = {"replica": f"r{replica.pk}", "stream": "stdout", "at": 0, "text": "hello"}

    def flows(self) -> int:
        return record_flows(self.world.plane, [self._flow])

    def logs(self) -> int:
        return record_logs(self.world.plane, [self._line])

    def destroy(self) -> None:
        projects.destroy_project(
            acting_user=self.world.actor(), project=self.cell.project, confirm=self.cell.project.slug
        )


@pytest.fixture
def told(committed_world: World) -> Told:
    return Told(committed_world)


@pytest.fixture(params=["flows", "logs"])
def tell(request: pytest.FixtureRequest, told: Told) -> Callable[[], int]:
    found: Callable[[], int] = getattr(told, request.param)
    return found


def test_what_is_told_while_a_project_goes_is_dropped_and_is_no_error(
    told: Told, tell: Callable[[], int]
) -> None:
    assert meanwhile(told.destroy, tell) == 0
    assert not Project.objects.exists()


def test_what_was_just_told_goes_with_the_project(told: Told, tell: Callable[[], int]) -> None:
    # What is counted for a cell has a row already, which both sides want.
    assert tell() == 1
    counted: list[Any] = []
    meanwhile(lambda: counted.append(tell()), told.destroy)
    assert counted == [1]
    assert not Cell.objects.exists() and not Edge.objects.exists() and not LogLine.objects.exists()


def test_nobody_who_works_on_a_cell_waits_for_what_is_told_of_it(told: Told, tell: Callable[[], int]) -> None:
    found: list[object] = []

    def work() -> None:
        try:
            with transaction.atomic(), connection.cursor() as cursor:
                cursor.execute("SET LOCAL lock_timeout = '1s'")
                found.append(locked_cell(told.cell.pk))
        except Exception as error:
            found.append(error)
        finally:
            connections.close_all()

    with transaction.atomic():
        assert tell() == 1
        thread = threading.Thread(target=work)
        thread.start()
        thread.join(20)
    assert found == [told.cell]
