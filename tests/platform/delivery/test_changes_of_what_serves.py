"""Configuration and scale, on their own and beside a push: what serves is changed, never an older state of it."""

from __future__ import annotations

import pytest

from controlplane.errors import CytoplaneError
from delivery import actions
from delivery.models import Deployment, Replica
from projects import actions as projects
from tests.factories import World
from tests.platform.delivery.test_machine import TWO, State, advance, state, wanted


def test_configuration_changed_during_a_push_doesnt_bring_the_old_code_back(world: World) -> None:
    cell = world.cell()
    world.deploy(cell, commit="a" * 40)
    push = world.push(cell, "b" * 40)
    advance(push)
    assert projects.set_variables(acting_user=world.actor(), cell=cell, set={"COLOUR": "red"})
    change = Deployment.objects.get(kind="config")
    assert state(change) == State.QUEUED
    world.carry(push)
    world.finish(change)
    cell.refresh_from_db()
    assert cell.serving_release is not None
    assert cell.serving_release.commit == "b" * 40
    assert cell.serving_release.variable_names == ["COLOUR"]


def test_scaling_during_a_push_doesnt_bring_the_old_code_back(world: World) -> None:
    cell = world.cell()
    world.deploy(cell, TWO, commit="a" * 40)
    push = world.push(cell, "b" * 40)
    advance(push)
    change = actions.scale(acting_user=world.actor(), cell=cell, numbers={"web": 3})
    world.carry(push, TWO)
    world.finish(change)
    cell.refresh_from_db()
    assert cell.serving_release is not None
    assert cell.serving_release.commit == "b" * 40
    assert wanted(cell) == {"v2": 3}


@pytest.mark.parametrize("what", ["config", "scale"])
def test_a_push_that_waits_takes_the_change_along_instead_of_being_lost(world: World, what: str) -> None:
    cell = world.cell()
    world.deploy(cell, TWO, commit="a" * 40)
    busy, waiting = world.push(cell, "b" * 40), None
    advance(busy)
    waiting = world.push(cell, "c" * 40)
    if what == "config":
        projects.set_variables(acting_user=world.actor(), cell=cell, set={"COLOUR": "red"})
    else:
        assert actions.scale(acting_user=world.actor(), cell=cell, numbers={"web": 4}) == waiting
    assert state(waiting) == State.QUEUED
    world.carry(busy, TWO)
    world.carry(waiting, TWO)
    cell.refresh_from_db()
    assert cell.serving_release is not None
    assert cell.serving_release.commit == "c" * 40
    assert cell.serving_release.variable_names == (["COLOUR"] if what == "config" else [])
    assert sum(wanted(cell).values()) == (4 if what == "scale" else 2)


def test_scaling_up_adds_replicas_and_down_drains_them(world: World) -> None:
    cell = world.cell()
    world.deploy(cell, TWO)
    known = set(Replica.objects.values_list("pk", flat=True))
    world.finish(actions.scale(acting_user=world.actor(), cell=cell, numbers={"web": 4}))
    assert wanted(cell) == {"v1": 4}
    assert known < set(Replica.objects.values_list("pk", flat=True))
    world.finish(actions.scale(acting_user=world.actor(), cell=cell, numbers={"web": 1}))
    assert wanted(cell) == {"v1": 1}
    assert Replica.objects.get().number == 1
    world.finish(actions.scale(acting_user=world.actor(), cell=cell, numbers={"web": 0}))
    assert not Replica.objects.exists()


def test_a_change_that_is_cancelled_while_it_waits_takes_nothing_from_the_one_before(world: World) -> None:
    cell = world.cell()
    world.deploy(cell, TWO)
    first = actions.scale(acting_user=world.actor(), cell=cell, numbers={"web": 4})
    advance(first)
    starting = set(Replica.objects.filter(wanted="run").values_list("pk", flat=True))
    assert len(starting) == 2
    second = actions.scale(acting_user=world.actor(), cell=cell, numbers={"web": 5})
    actions.cancel(acting_user=world.actor(), deployment=second)
    assert advance(second) == State.CANCELLED
    assert starting == set(Replica.objects.filter(wanted="run").values_list("pk", flat=True))


@pytest.mark.parametrize(
    ("numbers", "code"),
    [({"web": -1}, "invalid"), ({"web": 51}, "invalid"), ({"api": 1}, "not-found"), ({"web": 50}, "quota")],
)
def test_scale_is_bounded(world: World, numbers: dict, code: str) -> None:
    cell = world.cell()
    world.deploy(cell, TWO)
    with pytest.raises(CytoplaneError) as caught:
        actions.scale(acting_user=world.actor(), cell=cell, numbers=numbers)
    assert caught.value.code == code
    cell.refresh_from_db()
    assert cell.scale == {}


def test_without_a_release_there_is_nothing_to_scale_or_roll_back_from(world: World) -> None:
    cell = world.cell()
    with pytest.raises(CytoplaneError) as caught:
        actions.scale(acting_user=world.actor(), cell=cell, numbers={"web": 1})
    assert caught.value.code == "nothing-released"
    assert projects.set_variables(acting_user=world.actor(), cell=cell, set={"A": "1"})
    assert not Deployment.objects.exists()
