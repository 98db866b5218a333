"""What dies, comes twice or at the same time: a step is taken once, wholly or not at all."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.db import connections, transaction
from django.utils import timezone

from dataplane.planes import numbers
from dataplane.planes.models import ReplicaAddress
from delivery import actions, machine, replicas, tasks
from delivery.models import Build, Deployment, DeploymentStep, LogChunk, Release, Replica
from projects import actions as projects
from projects import hosts
from tests import factories
from tests.factories import World
from tests.queue import Queue

State = Deployment.State
TWO = "components: {web: {kind: web, command: serve, replicas: 2}}"


class Killed(BaseException):
    """The worker's end: no handler of errors sees it."""


def rows() -> dict[str, Any]:
    """Everything that a step may write."""
    return {
        "deployments": list(Deployment.objects.order_by("pk").values()),
        "steps": list(DeploymentStep.objects.order_by("pk").values()),
        "log": list(LogChunk.objects.order_by("pk").values()),
        "releases": list(Release.objects.order_by("pk").values("number", "commit")),
        "replicas": list(Replica.objects.order_by("pk").values()),
        "builds": list(Build.objects.order_by("pk").values()),
        "addresses": list(ReplicaAddress.objects.order_by("pk").values()),
    }


#: The state in which a worker dies, and in which function: just after it did its part.
KILLS = [
    (State.QUEUED, machine, "_enter"),
    (State.BUILDING, machine, "make_release"),
    (State.BUILDING, machine, "_enter"),
    (State.STARTING, replicas, "ensure"),
    (State.STARTING, replicas, "switch"),
    (State.STARTING, hosts, "move"),
    (State.SWITCHING, machine, "_enter"),
    (State.DRAINING, replicas, "remove"),
    (State.DRAINING, machine, "_finish_push"),
]


@pytest.mark.parametrize(
    ("state", "module", "name"), KILLS, ids=lambda value: getattr(value, "__name__", value)
)
def test_a_worker_that_dies_in_a_step_leaves_the_state_before_it(
    committed_world: World, monkeypatch: pytest.MonkeyPatch, state: str, module: Any, name: str
) -> None:
    world = committed_world
    cell = world.cell()
    world.deploy(cell, TWO)
    deployment = world.push(cell)
    prepare: dict[str, Callable[[], object]] = {
        State.BUILDING: lambda: factories.built(deployment, TWO),
        State.STARTING: lambda: (
            name == "ensure" or (machine.advance(deployment.pk), factories.healthy(_fresh(deployment)))
        ),
        State.SWITCHING: lambda: factories.acknowledge(world.plane),
        State.DRAINING: lambda: Deployment.objects.filter(pk=deployment.pk).update(
            state_since=timezone.now() - timedelta(minutes=1)
        ),
    }
    _bring_to(world, deployment, state)
    prepare.get(state, lambda: None)()
    assert _fresh(deployment).state == state
    before = rows()
    real = getattr(module, name)

    def dying(*arguments: Any, **named: Any) -> Any:
        real(*arguments, **named)
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(module, name, dying)
        with pytest.raises(Killed):
            machine.advance(deployment.pk)
    assert rows() == before
    release = _to_the_end(world, deployment)
    assert release.number == 2
    assert Replica.objects.filter(wanted="serve").count() == Replica.objects.count() == 2


def _fresh(deployment: Deployment) -> Deployment:
    return Deployment.objects.select_related("release", "cell__environment__plane").get(pk=deployment.pk)


def _bring_to(world: World, deployment: Deployment, state: str) -> None:
    """Forward until the deployment is in ``state`` and its work there isn't done."""
    order = [State.QUEUED, State.BUILDING, State.STARTING, State.SWITCHING, State.DRAINING]
    wanted = order.index(state)
    if wanted >= 1:
        machine.advance(deployment.pk)
    if wanted >= 2:
        factories.built(deployment, TWO)
        _without_starting(deployment)
    if wanted >= 3:
        machine.advance(deployment.pk)
        factories.healthy(_fresh(deployment))
        machine.advance(deployment.pk)
    if wanted >= 4:
        factories.acknowledge(world.plane)
        machine.advance(deployment.pk)


def _without_starting(deployment: Deployment) -> None:
    """One step from a build that is done: replicas are made in the next."""
    steps = dict(machine._STEPS)
    try:
        machine._STEPS[State.STARTING] = lambda _: None  # type: ignore[index,assignment]
        machine.advance(deployment.pk)
    finally:
        machine._STEPS.update(steps)


def _to_the_end(world: World, deployment: Deployment) -> Release:
    for _ in range(10):
        now = _fresh(deployment)
        if now.state == State.BUILDING and now.build.state != Build.State.DONE:
            factories.built(now, TWO)
        elif now.state == State.STARTING:
            machine.advance(now.pk)
            factories.healthy(_fresh(deployment))
        elif now.state == State.SWITCHING:
            machine.advance(now.pk)
            factories.acknowledge(world.plane)
        elif now.state == State.DRAINING:
            Deployment.objects.filter(pk=now.pk).update(state_since=timezone.now() - timedelta(minutes=1))
        elif now.state == State.LIVE:
            assert now.release is not None
            return now.release
        machine.advance(now.pk)
    raise AssertionError(f"it stays {_fresh(deployment).state}")


def test_an_unexpected_error_is_tried_again_and_ends_what_it_blocks_for_good(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    cell = world.cell()
    deployment = world.push(cell)
    machine.advance(deployment.pk)
    factories.built(deployment, TWO)
    monkeypatch.setattr(machine, "make_release", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        machine.advance(deployment.pk)
    assert _fresh(deployment).state == State.BUILDING
    long_ago = timezone.now() - machine.BUILD_LIMIT - timedelta(seconds=1)
    Deployment.objects.filter(pk=deployment.pk).update(state_since=long_ago)
    with pytest.raises(ZeroDivisionError):
        # Until now all went well: it may be a job that takes so long.
        machine.advance(deployment.pk)
    Deployment.objects.filter(pk=deployment.pk).update(lease_until=long_ago)
    assert machine.advance(deployment.pk) == State.FAILED
    assert _fresh(deployment).error_code == "internal"
    assert machine.advance(world.push(cell).pk) == State.BUILDING, "the cell isn't blocked"


def together(*calls: Callable[[], Any]) -> list[Any]:
    """Call at the same moment, each with a connection of its own; results or exceptions in order."""
    barrier = threading.Barrier(len(calls))
    results: list[Any] = [None] * len(calls)

    def run(position: int) -> None:
        try:
            barrier.wait(20)
            results[position] = calls[position]()
        except Exception as error:
            results[position] = error
        finally:
            connections.close_all()

    threads = [threading.Thread(target=run, args=(position,)) for position in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive(), "a lock is never released"
    return results


def failures(results: list[Any]) -> list[BaseException]:
    return [result for result in results if isinstance(result, BaseException)]


def test_workers_that_advance_at_once_take_each_step_once(committed_world: World) -> None:
    world = committed_world
    cell = world.cell()
    deployment = world.push(cell)
    work = [lambda: machine.advance(deployment.pk)] * 4
    assert not failures(together(*work))
    assert _fresh(deployment).state == State.BUILDING
    factories.built(deployment, TWO)
    for _ in range(3):
        assert not failures(together(*work))
    assert Release.objects.count() == 1
    assert Replica.objects.count() == 2
    factories.healthy(_fresh(deployment))
    for _ in range(3):
        assert not failures(together(*work))
    factories.acknowledge(world.plane)
    for _ in range(3):
        assert not failures(together(*work))
    assert [s.name for s in _fresh(deployment).steps.all()] == ["build", "start", "switch"] + ["drain"]
    text = "".join(LogChunk.objects.values_list("text", flat=True))
    assert text.count("Healthy; switching traffic") == text.count("is live in") == 1


def test_people_who_push_at_once_leave_one_underway_and_one_waiting(committed_world: World) -> None:
    world = committed_world
    cell = world.cell()
    first = world.push(cell)
    machine.advance(first.pk)
    results = together(*[lambda: world.push(cell)] * 5)
    assert not failures(results)
    states = sorted(Deployment.objects.exclude(pk=first.pk).values_list("state", flat=True))
    assert states == ["queued"] + ["superseded"] * 4


def test_pushes_changes_and_workers_together_never_wait_for_each_other_for_ever(
    committed_world: World,
) -> None:
    world = committed_world
    cell = world.cell()
    world.deploy(cell, TWO)
    owner = world.actor()

    def work() -> None:
        for pk in Deployment.objects.exclude(state__in=Deployment.ENDED).values_list("pk", flat=True):
            machine.advance(pk)

    for number in range(4):
        value = str(number)
        results = together(
            lambda value=value: projects.set_variables(acting_user=owner, cell=cell, set={"N": value}),  # type: ignore[misc]
            lambda number=number: actions.scale(acting_user=owner, cell=cell, numbers={"web": 1 + number}),  # type: ignore[misc]
            lambda: world.push(cell),
            work,
            work,
        )
        assert not failures(results), results
        busy = Deployment.objects.exclude(state__in=[*Deployment.ENDED, State.QUEUED])
        assert busy.count() <= 1
    cell.refresh_from_db()
    assert cell.config_version == 4


def test_variables_that_are_set_at_once_are_all_counted(committed_world: World) -> None:
    world = committed_world
    cell = world.cell()
    results = together(
        *[
            lambda n=n: projects.set_variables(acting_user=world.actor(), cell=cell, set={f"V{n}": "x"})  # type: ignore[misc]
            for n in range(5)
        ]
    )
    assert results == [True] * 5
    cell.refresh_from_db()
    assert cell.config_version == cell.variables.count() == 5


def test_two_builders_never_get_the_same_build(committed_world: World) -> None:
    world = committed_world
    project = world.project()
    for name in ("production", "staging"):
        machine.advance(world.push(world.cell(project, name)).pk)
    nodes = [world.builder(f"builder-{n}").node for n in range(4)]
    taken = together(*[lambda node=node: actions.claim_build(node) for node in nodes])  # type: ignore[misc]
    assert not failures(taken)
    numbers_ = [build.pk for build in taken if build is not None]
    assert len(numbers_) == len(set(numbers_)) == 2


def test_numbers_and_addresses_given_out_at_once_are_all_different(committed_world: World) -> None:
    world = committed_world

    def addresses() -> list[int]:
        with transaction.atomic():
            return [numbers.allocate_address(world.plane) for _ in range(5)]

    found = together(*[addresses] * 4)
    assert not failures(found)
    flat = [index for part in found for index in part]
    assert len(set(flat)) == 20
    identities = together(*[lambda: [numbers.allocate("identity") for _ in range(20)]] * 4)
    flat = [number for part in identities for number in part]
    assert len(set(flat)) == 80


def test_the_sweep_carries_on_what_lost_its_wake_up(committed_world: World, queue: Queue) -> None:
    world = committed_world
    deployment = world.push(world.cell())
    queue.clear()  # Redis lost everything
    tasks.sweep()
    assert [task.arguments for task in queue.waiting("delivery.advance")] == [(deployment.pk,)]
    queue.run()
    assert _fresh(deployment).state == State.BUILDING


def test_a_task_that_comes_twice_or_late_does_no_harm(committed_world: World, queue: Queue) -> None:
    world = committed_world
    cell = world.cell()
    world.deploy(cell, TWO)
    queue.clear()
    before = rows()
    for _ in range(2):
        tasks.advance(Deployment.objects.get().pk)
        tasks.advance(10**9)
    assert rows() == before


def test_an_aborted_change_enqueues_nothing(committed_world: World, queue: Queue) -> None:
    world = committed_world
    cell = world.cell()
    queue.clear()
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        world.push(cell)
        _ = 1 / 0
    assert queue.waiting() == []
    world.push(cell)
    assert [task.name for task in queue.waiting()] == ["delivery.advance"]


def test_tasks_take_numbers_and_names_only() -> None:
    with pytest.raises(TypeError):
        tasks.advance.enqueue({"secret": "x"})
