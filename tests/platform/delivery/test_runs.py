"""Runs: begun once, ended once, whoever dies meanwhile; counted, bounded, and nobody else's to see."""

from __future__ import annotations

from datetime import datetime, timedelta
from threading import Thread
from typing import Any
from unittest.mock import Mock

import pytest
from django.db import connections, transaction
from django.utils import timezone

from cells.provisioning import states, work
from cells.provisioning.models import Place
from cells.provisioning.tasks import sweep
from controlplane.errors import CytoplaneError
from dataplane.drivers import DriverError
from dataplane.planes import numbers, presence, snapshots
from dataplane.planes.models import Node, Plane, ReplicaAddress, Touched, Unit
from delivery import actions, machine, run_actions, runs
from delivery.models import Deployment, Replica, Run
from projects import actions as projects
from projects.models import Cell
from tenants.models import AuditEvent
from tests import factories
from tests.factories import World
from tests.queue import Queue
from tests.waiting import waited_for

State = Run.State
SECRET = "hunter2-hunter2"


@pytest.fixture
def cell(world: World) -> Cell:
    """Of a project that serves."""
    made = world.cell()
    world.deploy(made)
    return world.cell(made.project)


def start(world: World, cell: Cell, *words: str, component: str = "web", timeout: int = 0) -> Run:
    return run_actions.start(
        acting_user=world.actor("developer"),
        cell=cell,
        component=component,
        words=list(words),
        timeout=timeout,
    )


def says(world: World, run: Run, phase: str, **more: Any) -> str:
    """What its node reports; the state after it."""
    run.refresh_from_db()
    assert run.replica is not None
    actions.record_replica_reports(world.plane, [{"id": f"r{run.replica.pk}", "phase": phase, **more}])
    return advance(run)


def advance(run: Run) -> str:
    runs.advance(run.pk)
    run.refresh_from_db()
    return run.state


def entry(world: World, run: Run) -> dict[str, Any]:
    """What the plane's nodes are told of the run's replica, as they are told."""
    snapshots.rebuild(world.plane.pk)
    found = snapshots.newest(world.plane.pk, 0)
    assert found is not None
    every = [e for unit in found["units"].values() for e in unit["endpoints"]]
    return next(e for e in every if e["id"] == f"r{run.replica_number}")


def later(run: Run, **fields: timedelta) -> None:
    """The time passes: its times are so much longer ago."""
    for name, by in fields.items():
        Run.objects.filter(pk=run.pk).update(**{name: getattr(run, name) - by})
    run.refresh_from_db()


def test_a_run_has_the_serving_releases_image_settings_and_identity_and_never_serves(
    world: World, cell: Cell
) -> None:
    run = start(world, cell, "python", "manage.py", "migrate")
    told = entry(world, run)
    serving = Replica.objects.get(workload=run.workload, wanted="serve")
    assert told["process"]["image"] == cell.serving_release.images["web"]
    assert told["process"]["command"] == ["python", "manage.py", "migrate"]
    assert (told["process"]["restart"], told["process"]["timeout"]) == ("never", 3600)
    assert told["process"]["environment"]["CYTOPLANE_RUN"] == str(run.pk)
    assert told["identity"] == serving.workload.identity
    boundary = snapshots.topology(world.plane)
    (web,) = [w for c in boundary.cells for w in c.workloads if w.name == "web"]
    assert {(r.id, r.serving) for r in web.replicas} == {
        (f"r{serving.pk}", True),
        (f"r{run.replica_number}", False),
    }


def test_its_words_are_sealed_are_in_no_desired_state_and_gone_with_its_replica(
    world: World, cell: Cell
) -> None:
    run = start(world, cell, "login", SECRET)
    snapshots.rebuild(world.plane.pk)
    assert SECRET not in str(list(Unit.objects.values_list("document", flat=True)))
    assert SECRET.encode() not in bytes(run.command)
    assert SECRET not in str(list(AuditEvent.objects.values()))
    event = AuditEvent.objects.get(verb="run.start")
    assert event.changes == {"program": "login", "words": 2, "release": 1}
    says(world, run, "ended", exit_code=0)
    later(run, ended_at=runs.LINGER)
    advance(run)
    assert run.replica is None
    assert not bytes(run.command)


@pytest.mark.parametrize(
    ("report", "state", "code"),
    [
        ({"exit_code": 0}, State.SUCCEEDED, 0),
        ({"exit_code": 3, "last_lines": ["no"]}, State.FAILED, 3),
        ({"exit_code": 137, "timed_out": True}, State.TIMED_OUT, 137),
        ({}, State.FAILED, None),
        # What no process can end with is no code.
        ({"exit_code": 2**70}, State.FAILED, None),
        ({"exit_code": True}, State.FAILED, None),
    ],
)
def test_a_run_ends_as_its_node_says_and_only_once(
    world: World, cell: Cell, report: dict[str, Any], state: str, code: int | None
) -> None:
    run = start(world, cell, "job")
    assert says(world, run, "healthy") == State.RUNNING
    assert says(world, run, "ended", **report) == state
    assert run.exit_code == code
    assert run.last_lines == report.get("last_lines", [])
    ended = run.ended_at
    # It can say what it likes from then on.
    assert says(world, run, "healthy") == state
    assert says(world, run, "ended", exit_code=9) == state
    assert (run.exit_code, run.ended_at) == (code, ended)
    later(run, ended_at=runs.LINGER)
    advance(run)
    assert not Replica.objects.filter(pk=run.replica_number).exists()
    assert ReplicaAddress.objects.exclude(freed_at=None).count() == 1


def test_what_its_node_cant_say_is_lost_with_a_reason(world: World, cell: Cell) -> None:
    run = start(world, cell, "job")
    assert says(world, run, "lost", reason="its machine was started anew while it ran") == State.LOST
    assert "started anew" in run.reason


def test_a_node_cant_speak_of_another_planes_run(world: World, cell: Cell) -> None:
    other = Plane.objects.create(name="other", engine=Plane.Engine.MACHINE)
    run = start(world, cell, "job")
    actions.record_replica_reports(
        other, [{"id": f"r{run.replica_number}", "phase": "ended", "exit_code": 0}]
    )
    assert advance(run) == State.STARTING


def test_what_is_taken_away_during_a_report_costs_no_other_run_its_end(
    world: World, cell: Cell, monkeypatch: pytest.MonkeyPatch
) -> None:
    cancelled, other = start(world, cell, "job"), start(world, cell, "job")
    detail = actions._detail

    def meanwhile(report: dict[str, Any]) -> dict[str, Any]:
        Replica.objects.filter(pk=cancelled.replica_number).delete()
        return detail(report)

    monkeypatch.setattr(actions, "_detail", meanwhile)
    ended = {"phase": "ended", "exit_code": 0}
    actions.record_replica_reports(
        world.plane, [{"id": f"r{run.replica_number}", **ended} for run in (cancelled, other)]
    )
    assert advance(other) == State.SUCCEEDED


def test_when_it_began_is_between_when_it_was_asked_for_and_now(world: World, cell: Cell) -> None:
    for claimed in (1.0, 2.0**35, "yesterday"):
        run = start(world, cell, "job")
        says(world, run, "healthy", started_at=claimed)
        assert run.started_at is not None
        assert run.created_at <= run.started_at <= timezone.now()


def test_what_takes_too_long_is_ended_and_its_replica_goes(world: World, cell: Cell) -> None:
    run = start(world, cell, "sleep", "99", timeout=10)
    says(world, run, "healthy")
    assert advance(run) == State.RUNNING
    # Its node asks it to end, waits for ten seconds, and says how it ended.
    later(run, started_at=timedelta(seconds=27))
    assert advance(run) == State.RUNNING
    later(run, started_at=timedelta(seconds=30))
    assert advance(run) == State.TIMED_OUT
    assert run.replica is None


def silent(since: timedelta) -> None:
    """Nothing was heard of the plane for so long."""
    Node.objects.update(last_seen_at=timezone.now() - since)


@pytest.mark.parametrize("begun", [True, False])
def test_what_nobody_can_tell_is_waited_for_and_then_lost(world: World, cell: Cell, begun: bool) -> None:
    run = start(world, cell, "job", timeout=10)
    field, due = "created_at", runs.START
    if begun:
        says(world, run, "healthy")
        field, due = "started_at", timedelta(seconds=10) + runs.MARGIN[Plane.Engine.MACHINE]
    state = run.state
    later(run, **{field: due + timedelta(seconds=30)})
    silent(timedelta(seconds=31))
    assert advance(run) == state, "it may have ended, and isn't to be tried again"
    later(run, **{field: timedelta(seconds=30)})
    silent(timedelta(seconds=61))
    assert advance(run) == State.LOST
    assert "offline since" in run.reason


def test_what_was_told_while_the_clock_was_looked_at_counts(
    world: World, cell: Cell, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = start(world, cell, "job", timeout=10)
    says(world, run, "healthy")
    later(run, started_at=timedelta(minutes=1))
    heard_at = presence.heard_at

    def told(plane: Plane) -> datetime:
        ended = {"id": f"r{run.replica_number}", "phase": "ended", "exit_code": 0}
        actions.record_replica_reports(plane, [ended])
        return heard_at(plane)

    monkeypatch.setattr(presence, "heard_at", told)
    assert advance(run) == State.RUNNING
    assert advance(run) == State.SUCCEEDED


def test_on_a_cluster_that_workers_drive_their_look_counts(
    world: World, cell: Cell, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.plane.engine, world.plane.kubeconfig = Plane.Engine.KUBERNETES, b"sealed"
    world.plane.created_at -= timedelta(days=1)
    world.plane.save()
    place = Place.objects.create(
        cell=cell, plane=world.plane, location="cy-1", number=cell.number, next_at=timezone.now()
    )
    run = start(world, cell, "job", timeout=10)
    says(world, run, "healthy")
    # Nodes there leave it to workers.
    later(run, started_at=timedelta(seconds=16))
    cluster = Mock()
    monkeypatch.setattr(states, "driver_of", lambda _: cluster)
    monkeypatch.setattr(states.work, "placed", lambda _: None)
    cluster.reports.side_effect = DriverError("It doesn't answer.")
    states.look(place.pk)
    assert advance(run) == State.RUNNING
    cluster.reports.side_effect = lambda *_: []
    Place.objects.update(look_at=timezone.now())
    states.look(place.pk)
    assert advance(run) == State.TIMED_OUT


def test_of_many_places_those_that_wait_longest_are_looked_at_first(
    world: World, cell: Cell, queue: Queue, django_capture_on_commit_callbacks: Any
) -> None:
    other = world.cell(world.project("other"))
    world.deploy(other)
    Plane.objects.update(kubeconfig=b"sealed")
    now = timezone.now()
    waits = {cell: now - timedelta(seconds=1), other: now - timedelta(minutes=1)}
    later, first = (
        Place.objects.create(
            cell=each, plane=world.plane, location=f"cy-{each.pk}", number=each.number, next_at=at, look_at=at
        )
        for each, at in waits.items()
    )
    queue.clear()
    with django_capture_on_commit_callbacks(execute=True):
        sweep()
    for task in ("provisioning.reconcile", "provisioning.look"):
        assert [each.arguments for each in queue.waiting(task)] == [(first.pk,), (later.pk,)], task


def test_a_clock_that_was_ahead_keeps_no_place_from_its_turn(world: World, cell: Cell) -> None:
    Plane.objects.update(kubeconfig=b"sealed")
    at = timezone.now() + timedelta(hours=2)
    place = Place.objects.create(
        cell=cell,
        plane=world.plane,
        location="cy-1",
        number=cell.number,
        next_at=at,
        look_at=at,
        lease_until=at,
    )
    assert states.due() == [place.pk]
    states.look(place.pk)
    assert states.due() == []
    assert work.claim(place.pk) is not None
    assert work.claim(place.pk) is None


def test_what_cant_be_started_says_why(world: World, cell: Cell) -> None:
    run = start(world, cell, "job")
    assert says(world, run, "failed", reason="pulling the image failed") == State.STARTING
    later(run, created_at=runs.START + timedelta(seconds=10))
    assert advance(run) == State.FAILED
    assert "pulling the image failed" in run.reason
    assert run.replica is None, "it mustn't begin after all"


def test_a_lost_wake_up_is_made_up_for_by_the_clock(world: World, cell: Cell, queue: Queue) -> None:
    run = start(world, cell, "job")
    run.refresh_from_db()
    Replica.objects.filter(pk=run.replica_number).update(phase="ended", detail={"exit_code": 0})
    queue.clear()
    assert runs.unfinished() == [run.pk]
    advance(run)
    later(run, ended_at=runs.LINGER)
    assert runs.unfinished() == [run.pk], "its replica is there"
    advance(run)
    assert runs.unfinished() == []


def test_only_so_many_go_on_at_once_and_the_plan_counts_them(world: World, cell: Cell) -> None:
    for _ in range(runs.MOST_AT_ONCE):
        start(world, cell, "job")
    with pytest.raises(CytoplaneError) as refused:
        start(world, cell, "job")
    assert refused.value.code == "runs-full"
    Run.objects.first().delete()  # type: ignore[union-attr]
    plan = world.acme.plan
    type(plan).objects.filter(pk=plan.pk).update(replicas=2 + runs.MOST_AT_ONCE - 1)
    with pytest.raises(CytoplaneError) as refused:
        start(world, cell, "job")
    assert refused.value.code == "quota"


def test_only_so_many_begin_while_an_address_rests(
    world: World, cell: Cell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "MOST_BEGUN", 3)
    monkeypatch.setattr(runs, "KEPT", 0)
    for _ in range(3):
        run_actions.cancel(acting_user=world.actor(), cell=cell, run=start(world, cell, "job"))
    with pytest.raises(CytoplaneError) as refused:
        start(world, cell, "job")
    assert refused.value.code == "runs-paced"
    other = world.cell(tenant="globex")
    world.deploy(other)
    run_actions.start(
        acting_user=world.actor("owner", "globex"),
        cell=world.cell(other.project),
        component="web",
        words=["a"],
    )
    Run.objects.update(created_at=timezone.now() - numbers.REST)
    start(world, cell, "job")


def test_a_cancelled_run_goes_at_once(world: World, cell: Cell) -> None:
    run = start(world, cell, "job")
    Touched.objects.all().delete()
    run_actions.cancel(acting_user=world.actor("admin"), cell=cell, run=run)
    run.refresh_from_db()
    assert (run.state, run.replica) == (State.CANCELLED, None)
    assert Touched.objects.exists()
    with pytest.raises(CytoplaneError) as refused:
        run_actions.cancel(acting_user=world.actor("admin"), cell=cell, run=run)
    assert refused.value.code == "conflict"


@pytest.mark.parametrize(
    ("words", "timeout", "component", "code"),
    [
        ([], 0, "web", "invalid"),
        (["a\0b"], 0, "web", "invalid"),
        (["\ud800"], 0, "web", "invalid"),
        ([" "], 0, "web", "invalid"),
        (["a"] * 257, 0, "web", "invalid"),
        (["a" * 20000], 0, "web", "invalid"),
        (["a"], -1, "web", "invalid"),
        (["a"], 86401, "web", "invalid"),
        (["a"], 0, "nobody", "not-found"),
    ],
)
def test_what_cant_be_run_is_refused(
    world: World, cell: Cell, words: list[str], timeout: int, component: str, code: str
) -> None:
    with pytest.raises(CytoplaneError) as refused:
        start(world, cell, *words, component=component, timeout=timeout)
    assert refused.value.code == code
    assert not Run.objects.exists()


def test_a_run_survives_a_deployment_unless_its_component_is_gone(world: World, cell: Cell) -> None:
    kept, gone = start(world, cell, "job", component="api"), start(world, cell, "job", component="web")
    says(world, kept, "healthy")
    deployment = world.push(cell)
    machine.advance(deployment.pk)
    factories.built(deployment, "components: {api: {kind: service, command: serve}}")
    machine.advance(deployment.pk)
    Replica.objects.filter(release__number=2).update(phase="healthy")
    assert machine.advance(deployment.pk) == Deployment.State.SWITCHING
    kept.refresh_from_db()
    gone.refresh_from_db()
    assert (kept.state, gone.state) == (State.RUNNING, State.CANCELLED)
    assert "v2 doesn't declare" in gone.reason
    assert entry(world, kept)["process"]["environment"]["CYTOPLANE_RELEASE"] == "v1"


def test_a_run_isnt_a_replica_that_people_scale_or_watch(world: World, cell: Cell) -> None:
    start(world, cell, "job")
    answer = world.api("viewer").get("/tenants/acme/projects/shop/environments/production/replicas").json()
    assert len(answer) == 2
    change = actions.scale(acting_user=world.actor(), cell=cell, numbers={"web": 2})
    world.finish(change)
    assert Replica.objects.filter(wanted="once").count() == 1


def test_lines_of_a_run_can_be_asked_for(world: World, cell: Cell) -> None:
    from telemetry import actions as telemetry

    run = start(world, cell, "job")
    lines = [{"replica": f"r{run.replica_number}", "text": "mine", "at": 1.0}]
    lines.append({"replica": f"r{Replica.objects.filter(wanted='serve').first().pk}", "text": "other"})  # type: ignore[union-attr]
    telemetry.record_logs(world.plane, lines)
    path = "/tenants/acme/projects/shop/environments/production/logs"
    found = world.api("viewer").get(f"{path}?replica=r{run.replica_number}").json()
    assert [row["text"] for row in found] == ["mine"]
    assert world.api("viewer").get(f"{path}?replica=x").json() == []


def test_nothing_is_run_while_the_plane_is_offline_or_nothing_is_released(world: World, cell: Cell) -> None:
    Node.objects.update(last_seen_at=timezone.now() - timedelta(hours=1))
    with pytest.raises(CytoplaneError) as refused:
        start(world, cell, "job")
    assert refused.value.code == "plane-offline"
    with pytest.raises(CytoplaneError) as refused:
        start(world, world.cell(cell.project, "staging"), "job")
    assert refused.value.code == "nothing-released"


def test_what_begins_while_its_project_is_destroyed_gives_its_address_back(committed_world: World) -> None:
    world, cell = committed_world, committed_world.cell()
    world.deploy(cell)
    cell = world.cell(cell.project)

    def destroy() -> None:
        projects.destroy_project(acting_user=world.actor("owner"), project=cell.project, confirm="shop")
        connections.close_all()

    thread = Thread(target=destroy)
    with transaction.atomic():
        start(world, cell, "job")
        thread.start()
        waited_for()
    thread.join()
    assert not Replica.objects.exists()
    assert not ReplicaAddress.objects.filter(freed_at=None).exists()


def test_only_so_many_ended_runs_are_kept(world: World, cell: Cell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "KEPT", 2)
    for _ in range(5):
        run = start(world, cell, "job")
        run_actions.cancel(acting_user=world.actor(), cell=cell, run=run)
        Run.objects.filter(pk=run.pk).update(created_at=timezone.now() - numbers.REST)
    assert Run.objects.count() == 3
