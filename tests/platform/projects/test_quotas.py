"""A plan bounds what a tenant runs and what is on its way, whoever comes first."""

from __future__ import annotations

import threading

import pytest
from django.db import connections

from controlplane.errors import CytoplaneError
from delivery import actions, machine
from delivery.models import Deployment, Replica
from projects import quotas
from projects.models import Cell
from tests import factories
from tests.factories import World

State = Deployment.State


def replicas(number: int) -> str:
    return f"components: {{web: {{kind: web, command: serve, replicas: {number}}}}}"


def allow(world: World, number: int) -> None:
    world.plan.replicas = number
    world.plan.save()


def building(world: World, cell: Cell, number: int) -> Deployment:
    deployment = world.push(cell)
    machine.advance(deployment.pk)
    factories.built(deployment, replicas(number))
    return deployment


def outcome(deployment: Deployment) -> tuple[str, str]:
    machine.advance(deployment.pk)
    deployment.refresh_from_db()
    return deployment.state, deployment.error_code


def test_a_release_on_its_way_counts(world: World) -> None:
    allow(world, 4)
    project = world.project()
    first = building(world, world.cell(project), 3)
    second = building(world, world.cell(project, "staging"), 3)
    assert outcome(first) == (State.STARTING, "")
    assert outcome(second) == (State.FAILED, "quota")
    assert quotas.usage(world.acme).replicas == 3
    Replica.objects.update(phase="failed")
    assert outcome(first)[0] == State.FAILED
    assert quotas.usage(world.acme).replicas == 0
    assert outcome(building(world, world.cell(project, "staging"), 3)) == (State.STARTING, "")


def test_a_cell_counts_with_the_most_of_what_serves_and_what_comes(world: World) -> None:
    cell = world.cell()
    world.deploy(cell, replicas(3))
    smaller = building(world, cell, 1)
    assert outcome(smaller)[0] == State.STARTING
    assert quotas.usage(world.acme).replicas == 3
    world.finish(smaller)
    assert quotas.usage(world.acme).replicas == 1
    larger = building(world, cell, 4)
    assert outcome(larger)[0] == State.STARTING
    assert quotas.usage(world.acme).replicas == 4


def test_a_retry_must_fit_again(world: World) -> None:
    allow(world, 4)
    project = world.project()
    failed = building(world, world.cell(project), 3)
    assert outcome(failed)[0] == State.STARTING
    Replica.objects.update(phase="failed")
    assert outcome(failed)[0] == State.FAILED
    world.deploy(world.cell(project, "staging"), replicas(3))
    with pytest.raises(CytoplaneError) as caught:
        actions.retry(acting_user=world.actor(), deployment=failed)
    assert caught.value.code == "quota"


def test_scaling_is_judged_by_what_comes_too(world: World) -> None:
    """Replicas of a release that starts follow the cell's numbers."""
    allow(world, 4)
    cell = world.cell()
    world.deploy(cell, replicas(1))
    wide = world.push(cell)
    machine.advance(wide.pk)
    factories.built(wide, "components: {web: {kind: web, command: serve}, task: {command: x, replicas: 3}}")
    assert outcome(wide)[0] == State.STARTING
    with pytest.raises(CytoplaneError) as caught:
        actions.scale(acting_user=world.actor(), cell=cell, numbers={"web": 2})
    assert caught.value.code == "quota"


def test_two_cells_at_the_same_moment_dont_both_fit_alone(committed_world: World) -> None:
    world = committed_world
    allow(world, 4)
    project = world.project()
    both = [building(world, world.cell(project, name), 3) for name in ("production", "staging")]
    gate = threading.Barrier(2)

    def run(deployment: Deployment) -> None:
        gate.wait(10)
        try:
            machine.advance(deployment.pk)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=run, args=(deployment,)) for deployment in both]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    states = sorted(Deployment.objects.values_list("state", flat=True))
    assert states == [State.FAILED, State.STARTING]
