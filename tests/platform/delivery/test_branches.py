"""Two pushes of one branch: the second is told before it is built, not after it serves."""

from __future__ import annotations

import pytest

from delivery import actions, machine
from delivery.git import repository
from delivery.models import Deployment, Push
from projects.models import Cell
from tests import factories
from tests.factories import ARCHIVE, World

pytestmark = pytest.mark.django_db
State = Deployment.State


@pytest.fixture
def cell(world: World) -> Cell:
    return world.cell()


def commit(cell: Cell, text: str, parent: str = "") -> str:
    """A commit in the project's real repository."""
    path = repository.repository_of(cell.project)
    tree = repository.git(path, "mktree", data=b"").strip()
    who = {f"GIT_{a}_{b}": "tester" for a in ("AUTHOR", "COMMITTER") for b in ("NAME", "EMAIL")}
    parents = ["-p", parent] if parent else []
    return repository.git(path, "commit-tree", tree, *parents, "-m", text, extra=who).strip()


def push(world: World, cell: Cell, old: str, new: str) -> Deployment:
    return actions.start_push(
        acting_user=factories.actor(world.person("developer")),
        cell=cell,
        branch=cell.environment.branch,
        old=old,
        new=new,
        summary="A change",
        archive=ARCHIVE,
    )


def head(cell: Cell) -> str:
    return repository.head(cell.project, cell.environment.branch)


def test_a_push_that_waited_behind_one_that_serves_is_declined_before_it_is_built(
    world: World, cell: Cell
) -> None:
    left, right = commit(cell, "left"), commit(cell, "right")
    first = push(world, cell, repository.ZERO, left)
    machine.advance(first.pk)
    second = push(world, cell, repository.ZERO, right)
    factories.built(first)
    world.finish(first)
    assert repository.move_branch(cell.project, cell.environment.branch, left, repository.ZERO)
    machine.advance(second.pk)
    second.refresh_from_db()
    assert (second.state, second.error_code) == (State.FAILED, "branch-moved")
    assert second.still_serving == "v1"
    assert head(cell) == left


def test_the_branch_of_what_serves_is_moved_even_if_its_client_was_lost(world: World, cell: Cell) -> None:
    left = commit(cell, "left")
    first = push(world, cell, repository.ZERO, left)
    world.carry(first)
    # The client claimed the branch and died before git moved it.
    Push.objects.filter(deployment=first).update(moved_by=Push.Mover.CLIENT)
    assert head(cell) == repository.ZERO
    late = push(world, cell, repository.ZERO, commit(cell, "late"))
    machine.advance(late.pk)
    late.refresh_from_db()
    assert (late.state, late.error_code) == (State.FAILED, "branch-moved")
    assert head(cell) == left
    again = push(world, cell, left, commit(cell, "again", left))
    machine.advance(again.pk)
    again.refresh_from_db()
    assert again.state == State.BUILDING


def test_a_push_after_one_that_failed_goes_on_from_the_same_commit(world: World, cell: Cell) -> None:
    failed = push(world, cell, repository.ZERO, commit(cell, "failed"))
    machine.advance(failed.pk)
    Deployment.objects.filter(pk=failed.pk).update(cancel_requested=True)
    machine.advance(failed.pk)
    second = push(world, cell, repository.ZERO, commit(cell, "second"))
    machine.advance(second.pk)
    second.refresh_from_db()
    assert second.state == State.BUILDING
