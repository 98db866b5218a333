"""Units follow what happens, and are then exactly what a rebuild of everything would make of the rows."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
from django.db import connection, transaction

from dataplane.planes import actions, snapshots, tasks, units
from dataplane.planes.models import Plane, Touched, Unit
from dataplane.planes.reading import Rows
from delivery import actions as delivery
from projects import actions as projects
from projects.models import Project
from tests.factories import World
from tests.queue import Queue

pytestmark = pytest.mark.usefixtures("installation")
TARGETS = ("shop", "billing", "search")
#: What a project may be: what it offers and whom it calls.
SPECIFICATIONS = (
    "components:\n  api: {kind: service, command: x, endpoints: {http: {port: 8080, visibility: tenant}}}\n",
    "components:\n  api: {kind: service, command: x, endpoints: {http: {port: 9090, visibility: tenant}}}\n",
    "components:\n  api: {kind: service, command: x, endpoints: {http: {port: 8080, visibility: cell}}}\n",
    "components:\n  api: {kind: service, command: x, endpoints: {sql: {port: 5432, protocol: tcp, visibility: tenant}}}\n",
    "components:\n  web: {kind: web, command: x}\n",
)
CALLING = "    connections: [{to: %s/api}]\n"


def declared(dice: random.Random, own: str) -> str:
    text = dice.choice(SPECIFICATIONS)
    if dice.random() < 0.7:
        other = dice.choice([name for name in TARGETS if name != own])
        text += "  caller:\n    kind: worker\n    command: x\n" + CALLING % other
    return text


def exact(plane: Plane) -> None:
    """What is kept is what the rows say, unit by unit."""
    made = {unit.number: unit for unit in units.Work(plane, snapshots.settings.CONFIG).all()}
    kept = {row.number: row for row in Unit.objects.filter(plane=plane)}
    assert {n for n, u in made.items() if u.document is not None} == {
        n for n, row in kept.items() if row.document is not None
    }
    for number, unit in made.items():
        assert kept[number].document == unit.document, f"unit {number}"
        if unit.cell is not None:
            assert kept[number].facts == snapshots.plain(unit.cell)
            assert kept[number].audit == unit.cell.audit


class Life:
    """What people do, at random."""

    def __init__(self, world: World, seed: int) -> None:
        self.world, self.dice = world, random.Random(seed)
        self.projects: dict[str, Project] = {}

    def step(self) -> str:
        slug = self.dice.choice(TARGETS)
        project = self.projects.get(slug)
        if project is None:
            self.projects[slug] = self.world.project(slug)
            return f"create {slug}"
        what = self.dice.choice(("deploy", "deploy", "deploy", "scale", "strict", "audit", "destroy"))
        actor: Any = {"acting_user": self.world.actor()}
        cell = self.world.cell(project, self.dice.choice(("production", "staging")))
        if what == "destroy":
            if self.dice.random() < 0.5:
                projects.destroy_project(**actor, project=project, confirm=slug)
                del self.projects[slug]
        elif what == "strict":
            projects.set_strict(**actor, project=project, strict=self.dice.random() < 0.5)
        elif what == "audit":
            projects.set_audit(**actor, project=project, audited=self.dice.random() < 0.4)
        elif what == "scale" and cell.serving_release is not None:
            component = next(iter(cell.serving_release.specification["components"]))
            numbers = {component: self.dice.choice((1, 2))}
            self.world.finish(delivery.scale(**actor, cell=cell, numbers=numbers))
        else:
            self.world.deploy(cell, declared(self.dice, slug))
        return f"{what} {slug}"


@pytest.mark.parametrize("seed", range(6))
def test_whatever_people_do_units_are_what_the_rows_say(world: World, seed: int) -> None:
    life, history = Life(world, seed), []
    for _ in range(14):
        history.append(life.step())
        if life.dice.random() < 0.6:
            snapshots.rebuild(world.plane.pk)
            assert not Touched.objects.exists()
            exact(world.plane)
            assert snapshots.check(world.plane.pk) == 0, history
    snapshots.rebuild(world.plane.pk)
    exact(world.plane)


def test_a_change_touches_nothing_but_what_it_reaches(world: World) -> None:
    one, other, third = (world.cell(world.project(name)) for name in TARGETS)
    world.deploy(one, SPECIFICATIONS[0])
    world.deploy(
        other, SPECIFICATIONS[0] + "  caller:\n    kind: worker\n    command: x\n" + CALLING % "shop"
    )
    world.deploy(third, SPECIFICATIONS[0])
    before = snapshots.rebuild(world.plane.pk)
    world.deploy(one, SPECIFICATIONS[1])
    snapshots.rebuild(world.plane.pk)
    touched = set(Unit.objects.filter(generation__gt=before).values_list("number", flat=True))
    assert touched == {one.number, other.number}


def test_what_a_lost_note_left_out_of_date_is_found_and_counted(world: World) -> None:
    cell = world.cell()
    world.deploy(cell)
    snapshots.rebuild(world.plane.pk)
    Project.objects.update(strict=True)
    before = snapshots.rebuild(world.plane.pk)
    tasks.rebuild_all()
    assert Plane.objects.get(pk=world.plane.pk).generation > before
    exact(world.plane)
    assert Plane.objects.get(pk=world.plane.pk).repaired == 1
    tasks.rebuild_all()
    assert Plane.objects.get(pk=world.plane.pk).repaired == 1


def test_checks_go_round_all_units(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshots, "CHECKED", 2)
    for name in TARGETS:
        world.deploy(world.cell(world.project(name)), SPECIFICATIONS[0])
    snapshots.rebuild(world.plane.pk)
    Project.objects.update(strict=True)
    for _ in range(8):
        snapshots.check(world.plane.pk)
    exact(world.plane)


def test_other_code_or_another_installation_makes_everything_anew(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.deploy(world.cell())
    snapshots.rebuild(world.plane.pk)
    Project.objects.update(strict=True)
    monkeypatch.setattr(snapshots, "_code", lambda: "another version")
    snapshots.rebuild(world.plane.pk)
    exact(world.plane)


def test_a_change_that_is_undone_is_noted_nowhere(world: World) -> None:
    cell = world.cell()
    snapshots.rebuild(world.plane.pk)
    with pytest.raises(RuntimeError), transaction.atomic():
        projects.set_strict(acting_user=world.actor(), project=cell.project, strict=True)
        raise RuntimeError
    assert not Touched.objects.exists()


def test_a_change_that_is_committed_while_a_rebuild_runs_is_seen_by_the_next(
    committed_world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    plane = committed_world.plane
    cell = committed_world.cell()
    committed_world.deploy(cell)
    snapshots.rebuild(plane.pk)
    actions.note(plane, [cell.number])
    reading, goes_on = threading.Event(), threading.Event()
    rows = units.topology.rows

    def slow(*arguments: Any) -> Rows:
        found = rows(*arguments)
        reading.set()
        assert goes_on.wait(20)
        return found

    monkeypatch.setattr(units.topology, "rows", slow)

    def run() -> None:
        try:
            snapshots.rebuild(plane.pk)
        finally:
            connection.close()

    thread = threading.Thread(target=run)
    thread.start()
    assert reading.wait(20)
    monkeypatch.setattr(units.topology, "rows", rows)
    projects.set_strict(acting_user=committed_world.actor(), project=cell.project, strict=True)
    goes_on.set()
    thread.join(20)
    snapshots.rebuild(plane.pk)
    exact(plane)


@contextmanager
def held(plane: Plane, other: ThreadPoolExecutor) -> Iterator[None]:
    """Somebody else is at the plane."""
    taken, over = threading.Event(), threading.Event()

    def hold() -> None:
        try:
            with transaction.atomic(), connection.cursor() as cursor:
                cursor.execute("SELECT pg_advisory_xact_lock(%s, %s)", [snapshots._LOCK_CLASS, plane.pk])
                taken.set()
                over.wait(60)
        finally:
            connection.close()

    done = other.submit(hold)
    assert taken.wait(20)
    try:
        yield
    finally:
        over.set()
        done.result(20)


def test_a_change_is_in_the_units_once_its_action_is_done(committed_world: World, queue: Queue) -> None:
    cell = committed_world.cell()
    committed_world.deploy(cell)
    snapshots.rebuild(committed_world.plane.pk)
    queue.clear()
    projects.set_strict(acting_user=committed_world.actor(), project=cell.project, strict=True)
    assert not Touched.objects.exists() and not queue.waiting("planes.rebuild")
    exact(committed_world.plane)


def test_what_may_take_long_or_is_being_done_is_left_to_a_worker(
    committed_world: World, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    plane, cell = committed_world.plane, committed_world.cell()
    committed_world.deploy(cell)
    before = snapshots.rebuild(plane.pk)

    def left() -> None:
        assert [task.arguments for task in queue.waiting("planes.rebuild")] == [(plane.pk,)]
        assert Touched.objects.exists() and Plane.objects.get(pk=plane.pk).generation == before
        queue.run()
        assert not Touched.objects.exists()

    queue.clear()
    actions.touch(plane)
    left()
    monkeypatch.setattr(snapshots, "_FEW", 1)
    actions.touch(plane, [cell.number, cell.number + 1])
    left()
    with ThreadPoolExecutor(1) as other, held(plane, other):
        actions.touch(plane, [cell.number])
        assert queue.waiting("planes.rebuild") and Touched.objects.exists()
    left()


def test_a_change_whose_units_cant_be_made_is_made_and_left_to_a_worker(
    committed_world: World, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    cell = committed_world.cell()
    committed_world.deploy(cell)
    snapshots.rebuild(committed_world.plane.pk)
    queue.clear()

    def broken(*arguments: Any) -> Rows:
        raise RuntimeError("the database is gone")

    with monkeypatch.context() as patched:
        patched.setattr(units.topology, "rows", broken)
        projects.set_strict(acting_user=committed_world.actor(), project=cell.project, strict=True)
    assert Touched.objects.exists()
    queue.run()
    exact(committed_world.plane)
