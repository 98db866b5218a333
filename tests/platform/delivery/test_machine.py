"""A deployment's states one after the other, and each way to fail, on real rows and locks."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone

from controlplane.errors import CytoplaneError
from dataplane.planes.models import Node, Plane, ReplicaAddress
from delivery import actions, machine
from delivery.models import Build, Deployment, LogChunk, Release, Replica
from projects.models import Cell, Host
from tests import factories
from tests.factories import World

State = Deployment.State
TWO = """
components:
  web: {kind: web, command: serve, replicas: 2}
"""
QUIET = "components: {task: {kind: worker, command: run, replicas: 0}}"


def state(deployment: Deployment) -> str:
    deployment.refresh_from_db()
    return deployment.state


def advance(deployment: Deployment) -> str:
    reached = machine.advance(deployment.pk)
    assert state(deployment) == reached
    return reached


def log_of(deployment: Deployment) -> str:
    return "".join(LogChunk.objects.filter(deployment=deployment).values_list("text", flat=True))


def wanted(cell: Cell) -> dict[str, int]:
    """release → replicas that serve."""
    found: dict[str, int] = {}
    for replica in Replica.objects.filter(workload__cell=cell, wanted="serve").select_related("release"):
        found[str(replica.release)] = found.get(str(replica.release), 0) + 1
    return found


def started(world: World, cell: Cell, text: str = TWO) -> Deployment:
    """A push whose replicas are made and not healthy yet."""
    deployment = world.push(cell)
    advance(deployment)
    factories.built(deployment, text)
    assert advance(deployment) == State.STARTING
    return deployment


def test_each_state_waits_for_what_it_needs(world: World) -> None:
    cell = world.cell()
    deployment = world.push(cell)
    assert state(deployment) == State.QUEUED
    assert advance(deployment) == State.BUILDING
    assert advance(deployment) == State.BUILDING
    factories.built(deployment, TWO)
    assert advance(deployment) == State.STARTING
    assert Replica.objects.filter(wanted="run").count() == 2
    assert advance(deployment) == State.STARTING
    first = Replica.objects.first()
    assert first is not None
    Replica.objects.filter(pk=first.pk).update(phase="healthy")
    assert advance(deployment) == State.STARTING, "one of two isn't enough"
    factories.healthy(deployment)
    assert advance(deployment) == State.SWITCHING
    assert advance(deployment) == State.SWITCHING, "the node hasn't applied it yet"
    node = factories.acknowledge(world.plane)
    Node.objects.filter(pk=node.pk).update(acknowledged=deployment.awaited_generation - 1)
    assert advance(deployment) == State.SWITCHING
    factories.acknowledge(world.plane)
    assert advance(deployment) == State.LIVE
    assert [s.name for s in deployment.steps.all()] == ["build", "start", "switch", "drain"]
    assert all(s.ok and s.ended_at for s in deployment.steps.all())
    assert deployment.ended_at is not None


def test_nothing_moves_a_deployment_that_has_ended(world: World) -> None:
    cell = world.cell()
    world.deploy(cell)
    ended = Deployment.objects.get()
    before = (ended.state, ended.ended_at, log_of(ended))
    for final in Deployment.ENDED:
        Deployment.objects.filter(pk=ended.pk).update(state=final)
        assert machine.advance(ended.pk) == final
    Deployment.objects.filter(pk=ended.pk).update(state=before[0])
    ended.refresh_from_db()
    assert (ended.state, ended.ended_at, log_of(ended)) == before
    assert machine.advance(10**9) == ""


def test_the_old_release_serves_until_the_new_one_does_and_then_drains(world: World) -> None:
    cell = world.cell()
    world.deploy(cell, TWO)
    deployment = started(world, cell)
    assert wanted(cell) == {"v1": 2}
    factories.healthy(deployment)
    advance(deployment)
    assert wanted(cell) == {"v2": 2}
    assert Replica.objects.filter(wanted="drain", release__number=1).count() == 2
    factories.acknowledge(world.plane)
    assert advance(deployment) == State.DRAINING, "what is under way gets its time"
    assert Replica.objects.filter(wanted="drain").count() == 2
    assert factories.drained(deployment) == State.LIVE
    assert Replica.objects.count() == 2
    assert ReplicaAddress.objects.exclude(freed_at=None).count() == 2


@pytest.mark.parametrize(
    ("phase", "detail", "code", "words"),
    [
        (
            "failed",
            {"exit_code": 3, "last_lines": ["Traceback", "boom"]},
            "process-exited",
            "ended with code 3",
        ),
        (
            "failed",
            {"probe": {"what": "GET /healthz", "answer": "500"}, "exit_code": 0},
            "probe-failed",
            "GET /healthz",
        ),
        ("failed", {"reason": "the image can't be pulled"}, "start-failed", "the image can't be pulled"),
        ("failed", {}, "start-failed", "isn't known why"),
    ],
)
def test_a_start_that_fails_says_why_and_changes_nothing(
    world: World, phase: str, detail: dict, code: str, words: str
) -> None:
    cell = world.cell()
    world.deploy(cell, TWO)
    deployment = started(world, cell)
    Replica.objects.filter(release=deployment.release, number=1).update(phase=phase, detail=detail)
    assert advance(deployment) == State.FAILED
    assert deployment.error_code == deployment.error["id"] == code
    assert words in deployment.error["message"]
    assert deployment.still_serving == "v1"
    text = log_of(deployment)
    assert f"error id: {code}" in text
    assert "v1 still serves." in text
    assert deployment.error["next"] in text
    for line in detail.get("last_lines", []):
        assert line in text
    assert wanted(cell) == {"v1": 2}
    assert not Replica.objects.filter(release=deployment.release).exists()
    cell.refresh_from_db()
    assert str(cell.serving_release) == "v1"
    assert [s.ok for s in deployment.steps.all()] == [True, False]


def test_the_first_release_that_fails_leaves_nothing(world: World) -> None:
    cell = world.cell()
    deployment = started(world, cell)
    Replica.objects.update(phase="failed")
    assert advance(deployment) == State.FAILED
    assert "nothing serves" in log_of(deployment)
    assert deployment.still_serving == ""
    assert not Replica.objects.exists()


@pytest.mark.parametrize(("seen", "code"), [(0, "deployment-timeout"), (60, "plane-offline")])
def test_a_start_that_takes_too_long_ends(world: World, seen: int, code: str) -> None:
    cell = world.cell()
    deployment = started(world, cell)
    node = factories.acknowledge(world.plane)
    Node.objects.filter(pk=node.pk).update(last_seen_at=timezone.now() - timedelta(seconds=seen))
    almost = timedelta(seconds=60) + machine.START_MARGIN - timedelta(seconds=2)
    Deployment.objects.filter(pk=deployment.pk).update(state_since=timezone.now() - almost)
    assert advance(deployment) == State.STARTING
    Deployment.objects.filter(pk=deployment.pk).update(
        state_since=timezone.now() - almost - timedelta(seconds=3)
    )
    assert advance(deployment) == State.FAILED
    assert deployment.error_code == code


def test_what_a_replica_waits_for_is_said_when_the_time_is_over(world: World) -> None:
    cell = world.cell()
    deployment = started(world, cell)
    factories.acknowledge(world.plane)
    reason = "no node of the plane has enough memory for it"
    Replica.objects.filter(number=2).update(phase="pending", detail={"reason": reason})
    long_ago = timezone.now() - timedelta(seconds=61) - machine.START_MARGIN
    Deployment.objects.filter(pk=deployment.pk).update(state_since=long_ago)
    assert advance(deployment) == State.FAILED
    assert deployment.error_code == "start-failed"
    assert reason in deployment.error["message"]


def test_a_switch_waits_for_every_node_that_was_heard_of_lately(world: World) -> None:
    plane = world.plane
    for number in (1, 2, 3):
        Node.objects.create(
            plane=plane, kind="agent", name=f"node-{number}", last_seen_at=timezone.now(), acknowledged=0
        )
    deployment = started(world, world.cell())
    factories.healthy(deployment)
    assert advance(deployment) == State.SWITCHING
    awaited = deployment.awaited_generation
    Node.objects.filter(name="node-1").update(acknowledged=awaited)
    assert advance(deployment) == State.SWITCHING, "two nodes still send requests to the old ones"
    Node.objects.filter(name="node-2").update(acknowledged=awaited)
    assert advance(deployment) == State.SWITCHING
    # The third has gone: it goes on from what it knows, and nobody waits for it.
    silent = timezone.now() - machine.NODE_SILENCE - timedelta(seconds=1)
    Node.objects.filter(name="node-3").update(last_seen_at=silent)
    assert advance(deployment) == State.LIVE


def test_nodes_that_are_all_silent_confirm_nothing(world: World) -> None:
    silent = timezone.now() - machine.NODE_SILENCE - timedelta(seconds=1)
    Node.objects.create(plane=world.plane, kind="agent", name="n", last_seen_at=silent, acknowledged=0)
    deployment = started(world, world.cell())
    factories.healthy(deployment)
    assert advance(deployment) == State.SWITCHING
    assert advance(deployment) == State.SWITCHING


def test_a_cluster_without_any_agent_is_offline_before_anything_is_built(world: World) -> None:
    Plane.objects.filter(pk=world.plane.pk).update(engine=Plane.Engine.KUBERNETES)
    deployment = world.push(world.cell())
    assert advance(deployment) == State.FAILED
    assert deployment.error_code == "plane-offline"
    assert "no agent has enrolled" in deployment.error["message"]
    assert Build.objects.get().state == "cancelled"


def test_a_build_error_keeps_its_own_words(world: World) -> None:
    deployment = world.push(world.cell())
    advance(deployment)
    error = {"code": "build-failed", "parameters": {"component": "web", "code": 2}}
    Build.objects.update(state="failed", result={"error": error})
    assert advance(deployment) == State.FAILED
    assert deployment.error["message"] == "The build of web failed (exit code 2)."
    assert not Release.objects.exists()


@pytest.mark.parametrize(
    "error",
    [
        {},
        {"code": "no such code"},
        {"code": ["list"]},
        {"code": "build-failed", "parameters": "text"},
        {"code": "build-failed", "parameters": {"code": {"a": []}, "component": None}},
        {"code": 5, "parameters": [1]},
    ],
)
def test_whatever_a_builder_says_about_a_failure_ends_the_build(world: World, error: dict) -> None:
    deployment = world.push(world.cell())
    advance(deployment)
    builder = world.builder()
    build = actions.claim_build(builder.node)
    assert build is not None
    actions.finish_build(build, {"ok": False, "error": error})
    assert advance(deployment) == State.FAILED
    assert deployment.error_code == "build-failed"


def test_a_build_that_never_ends_is_ended(world: World) -> None:
    deployment = world.push(world.cell())
    advance(deployment)
    long_ago = timezone.now() - machine.BUILD_LIMIT - timedelta(seconds=1)
    Deployment.objects.filter(pk=deployment.pk).update(state_since=long_ago)
    assert advance(deployment) == State.FAILED
    assert deployment.error_code == "build-timeout"
    assert Build.objects.get().state == "cancelled"


def test_a_builder_that_goes_silent_is_replaced_once(world: World) -> None:
    deployment = world.push(world.cell())
    advance(deployment)
    silent = timezone.now() - machine.BUILDER_SILENCE - timedelta(seconds=1)
    for attempt in (1, 2):
        build = actions.claim_build(world.builder(f"builder-{attempt}").node)
        assert build is not None
        assert build.attempt == attempt
        assert advance(deployment) == State.BUILDING
        Build.objects.update(heartbeat_at=silent)
        reached = advance(deployment)
        if attempt == 1:
            assert reached == State.BUILDING
            assert (Build.objects.get().state, Build.objects.get().node) == ("waiting", None)
            assert "another attempt begins" in log_of(deployment)
    assert reached == State.FAILED
    assert deployment.error_code == "builder-lost"


def test_an_environment_without_a_plane_says_so(world: World) -> None:
    cell = world.cell()
    cell.environment.plane = None
    cell.environment.save()
    deployment = world.push(cell)
    assert advance(deployment) == State.FAILED
    assert deployment.error_code == "unavailable"


def test_a_quota_or_a_taken_host_ends_the_deployment_before_anything_starts(world: World) -> None:
    world.deploy(
        world.cell(world.project("other")),
        TWO.replace("2}", "1, endpoints: {http: {port: 80, visibility: public, host: desk}}}"),
    )
    deployment = world.push(world.cell())
    advance(deployment)
    factories.built(
        deployment,
        "components: {api: {kind: service, command: x, endpoints: {http: {port: 80, visibility: public, host: desk}}}}",
    )
    assert advance(deployment) == State.FAILED
    assert deployment.error_code == "host-taken"
    assert Host.objects.count() == 1
    assert not Release.objects.filter(cell=deployment.cell).exists()
    world.plan.replicas = 1
    world.plan.save()
    deployment = world.push(deployment.cell)
    advance(deployment)
    factories.built(deployment, TWO)
    assert advance(deployment) == State.FAILED
    assert deployment.error_code == "quota"


def test_components_without_replicas_are_live_at_once(world: World) -> None:
    cell = world.cell()
    deployment = world.push(cell)
    advance(deployment)
    factories.built(deployment, QUIET)
    assert advance(deployment) == State.SWITCHING
    factories.acknowledge(world.plane)
    assert advance(deployment) == State.LIVE


# Cancelling.


def cancel(world: World, deployment: Deployment) -> str:
    try:
        actions.cancel(acting_user=world.actor("developer"), deployment=deployment)
    except CytoplaneError as error:
        return error.code
    advance(deployment)
    return "ok"


def test_cancelling_while_it_waits_builds_or_starts(world: World) -> None:
    cell = world.cell()
    world.deploy(cell, TWO)
    waiting = world.push(cell)
    assert cancel(world, waiting) == "ok"
    building = world.push(cell)
    advance(building)
    assert actions.claim_build(world.builder().node) is not None
    assert cancel(world, building) == "ok"
    assert Build.objects.get(deployment=building).state == "cancelled"
    starting = started(world, cell)
    assert cancel(world, starting) == "ok"
    for deployment in (waiting, building, starting):
        assert state(deployment) == State.CANCELLED
        assert deployment.error_code == "deployment-cancelled"
        assert deployment.still_serving == "v1"
    assert wanted(cell) == {"v1": 2}
    assert Replica.objects.count() == 2


def test_what_has_switched_cant_be_cancelled(world: World) -> None:
    cell = world.cell()
    deployment = started(world, cell)
    factories.healthy(deployment)
    assert advance(deployment) == State.SWITCHING
    assert cancel(world, deployment) == "conflict"
    factories.acknowledge(world.plane)
    factories.drained(deployment)
    assert cancel(world, deployment) == "conflict"
    assert state(deployment) == State.LIVE
    assert not deployment.cancel_requested


# Queueing.


def test_a_second_deployment_waits_and_a_third_takes_its_place(world: World) -> None:
    cell = world.cell()
    first, second = world.push(cell), None
    advance(first)
    second = world.push(cell)
    assert advance(second) == State.QUEUED
    third = world.push(cell)
    assert state(second) == State.SUPERSEDED
    assert second.error_code == "deployment-superseded"
    assert advance(third) == State.QUEUED
    Build.objects.filter(deployment=first).update(state="failed", result={"error": {}})
    assert advance(first) == State.FAILED
    assert advance(third) == State.BUILDING


def test_cells_dont_wait_for_each_other(world: World) -> None:
    project = world.project()
    one, other = world.push(world.cell(project)), world.push(world.cell(project, "staging"))
    assert advance(one) == State.BUILDING
    assert advance(other) == State.BUILDING


def test_the_end_of_one_wakes_the_next(committed_world: World, queue) -> None:  # type: ignore[no-untyped-def]
    world = committed_world
    cell = world.cell()
    first = world.push(cell)
    machine.advance(first.pk)
    second = world.push(cell)
    queue.clear()
    actions.cancel(acting_user=world.actor(), deployment=first)
    queue.run()
    assert state(first) == State.CANCELLED
    assert state(second) == State.BUILDING


# Configuration and scale while something else is on its way.
