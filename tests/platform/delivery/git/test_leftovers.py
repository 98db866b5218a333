"""Nothing of pushes and projects stays on disk that nobody needs, however they ended."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from django.conf import settings
from django.utils import timezone

from controlplane.errors import CytoplaneError
from delivery import actions, machine, tasks
from delivery.git import leftovers, pushes, repository
from delivery.models import Build, Deployment, Push
from projects import actions as projects
from projects.models import Cell
from tests.factories import World
from tests.queue import Queue

_names = itertools.count(1)


def archive(age: timedelta = timedelta()) -> Path:
    """A source as a push leaves it."""
    path = settings.CONFIG.archives_dir / f"{next(_names):032x}.tar"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"")
    then = time.time() - age.total_seconds()
    os.utime(path, (then, then))
    return path


def push(world: World, cell: Cell) -> tuple[Deployment, Path]:
    deployment, source = world.push(cell), archive()
    Build.objects.filter(deployment=deployment).update(archive=source.name)
    return deployment, source


def ended_long_ago() -> None:
    old = timezone.now() - timedelta(days=2)
    Deployment.objects.filter(state__in=Deployment.ENDED).update(ended_at=old)


def superseded(world: World, cell: Cell) -> Path:
    machine.advance(world.push(cell).pk)
    _, source = push(world, cell)
    world.push(cell)
    return source


def cancelled(world: World, cell: Cell) -> Path:
    deployment, source = push(world, cell)
    actions.cancel(acting_user=world.actor(), deployment=deployment)
    machine.advance(deployment.pk)
    return source


def live(world: World, cell: Cell) -> Path:
    deployment, source = push(world, cell)
    world.carry(deployment)
    return source


@pytest.mark.parametrize("way", [superseded, cancelled, live])
def test_a_source_goes_a_day_after_its_deployments_end(
    world: World, way: Callable[[World, Cell], Path]
) -> None:
    source = way(world, world.cell())
    tasks.sweep()
    assert source.exists()
    ended_long_ago()
    tasks.sweep()
    assert not source.exists()
    assert not Build.objects.filter(archive=source.name).exists()
    assert not Build.objects.filter(deployment__state="superseded").exclude(state="cancelled").exists()


def test_another_try_keeps_its_source(world: World) -> None:
    cell = world.cell()
    source = cancelled(world, cell)
    ended_long_ago()
    again = actions.retry(acting_user=world.actor(), deployment=Deployment.objects.get())
    assert leftovers.forget_sources() == 0
    assert source.exists()
    actions.cancel(acting_user=world.actor(), deployment=again)
    machine.advance(again.pk)
    assert leftovers.forget_sources() == 0, "it may be tried once more"
    ended_long_ago()
    assert leftovers.forget_sources() == 2
    assert not source.exists()


def test_what_no_row_knows_goes_once_nobody_can_be_making_it(world: World) -> None:
    _, known = push(world, world.cell())
    os.utime(known, (0, 0))
    fresh, old = archive(), archive(age=timedelta(days=2))
    leftovers.remove_strangers()
    assert (known.exists(), fresh.exists(), old.exists()) == (True, True, False)


def test_the_repository_of_a_destroyed_project_goes_though_its_task_was_lost(world: World) -> None:
    lost, kept = world.project("lost"), world.project("kept")
    paths = [repository.repository_of(project) for project in (lost, kept)]
    unknown = settings.CONFIG.git_dir / "1" / "999999999.git"
    unknown.mkdir(parents=True)
    projects.destroy_project(acting_user=world.actor(), project=lost, confirm="lost")
    leftovers.remove_strangers()
    assert [path.exists() for path in (*paths, unknown)] == [False, True, True]


def test_a_push_that_cant_begin_leaves_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    project = world.project()
    path = repository.repository_of(project)
    blob = repository.git(path, "hash-object", "-w", "--stdin", data=b"x").strip()
    tree = repository.git(path, "mktree", data=f"100644 blob {blob}\ta\n".encode()).strip()
    who = {f"GIT_{a}_{b}": "tester" for a in ("AUTHOR", "COMMITTER") for b in ("NAME", "EMAIL")}
    commit = repository.git(path, "commit-tree", tree, "-m", "one", extra=who).strip()
    monkeypatch.setattr(pushes, "_is_quarantine", lambda *_: True)
    received = pushes.Received(actor=world.actor("viewer"), project=project)
    before = set(settings.CONFIG.archives_dir.glob("*"))
    updates = [[repository.ZERO, commit, "refs/heads/main"]]
    with pytest.raises(CytoplaneError) as caught:
        pushes.begin(received, updates, f"{path}/objects", f"{path}/objects")
    assert caught.value.code == "forbidden"
    assert set(settings.CONFIG.archives_dir.glob("*")) == before
    assert repository.git(path, "for-each-ref", "refs/cytoplane") == ""


def test_a_branch_that_nobody_moved_is_moved_though_its_wake_up_was_lost(
    committed_world: World, queue: Queue
) -> None:
    world = committed_world
    deployment = world.push(world.cell())
    world.carry(deployment)
    queue.clear()
    tasks.sweep()
    assert not queue.waiting("delivery.finish_push"), "whoever pushed may be there"
    Push.objects.update(attached_at=timezone.now() - 2 * tasks.UNMOVED)
    tasks.sweep()
    assert [task.arguments for task in queue.waiting("delivery.finish_push")] == [(deployment.pk,)]
    queue.run()
    tasks.sweep()
    assert not queue.waiting("delivery.finish_push")
