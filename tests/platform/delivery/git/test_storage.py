"""Repositories have a quota, and what pushes scatter is packed again while nothing that counts is lost."""

from __future__ import annotations

import fcntl
import os
import subprocess
import time
from pathlib import Path

import pytest

from controlplane.errors import CytoplaneError
from delivery import tasks
from delivery.git import repository, storage
from delivery.models import Deployment
from projects.models import Project
from tests.platform.delivery.git.conftest import Clone, Git
from tests.queue import Queue

OLD = 3 * 24 * 3600


def path_of(git: Git) -> Path:
    return repository.path_of(git.world.acme.pk, git.project.pk)


def tip(git: Git, ref: str) -> str:
    return repository.git(path_of(git), "rev-parse", ref).strip()


def loose(path: Path) -> int:
    return sum(1 for file in path.glob("objects/[0-9a-f][0-9a-f]/*") if file.is_file())


def packs(path: Path) -> int:
    return len(list(path.glob("objects/pack/*.pack")))


def filled(git: Git, pushes: int = 3) -> Clone:
    """A repository with some pushes to a branch that deploys nothing."""
    clone = git.clone()
    for number in range(pushes):
        clone.commit(f"change {number}", notes=f"{number}\n" * 50)
        done = clone.push("main:notes")
        assert done.code == 0, done.output
    return clone


def aged(path: Path, seconds: int = OLD) -> None:
    """As if all of it had lain there for a while."""
    then = time.time() - seconds
    for file in path.rglob("objects/**/*"):
        os.utime(file, (then, then))


def noise(clone: Clone, mebibytes: int) -> None:
    """A commit that doesn't get smaller by packing."""
    (clone.folder / "noise").write_bytes(os.urandom(mebibytes * 2**20))
    clone.commit("noise")


def test_a_push_that_would_exceed_the_quota_is_refused_and_leaves_nothing(git: Git, queue: Queue) -> None:
    git.world.plan.repository_mib = 2
    git.world.plan.save()
    clone = filled(git, 1)
    before = storage.size(path_of(git))
    noise(clone, 3)
    done = clone.push("main:notes")
    assert done.code != 0
    assert "error id: quota" in done.output
    assert "allows 2 MiB in the repository of shop" in done.output
    assert storage.size(path_of(git)) < before + 2**20
    assert tip(git, "refs/heads/notes") != clone.head()
    deploying = clone.push("main")
    assert deploying.code != 0 and "error id: quota" in deploying.output
    assert not Deployment.objects.exists()


def test_a_full_repository_still_lets_branches_be_deleted(git: Git) -> None:
    clone = filled(git, 1)
    git.world.plan.repository_mib = 0
    git.world.plan.save()
    assert clone.push("main:more").code != 0
    done = clone.push(":notes")
    assert done.code == 0, done.output


def test_a_push_that_is_refused_for_room_has_the_repository_packed(
    git: Git, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(git, 3)
    git.world.plan.repository_mib = 0
    git.world.plan.save()
    assert loose(path_of(git)) > 0
    clone = git.clone()
    clone.commit("more")
    queue.clear()
    assert clone.push("main:more").code != 0
    queue.run()
    assert (loose(path_of(git)), packs(path_of(git))) == (0, 1)


def test_packing_keeps_every_branch_and_every_waiting_push(git: Git) -> None:
    clone = filled(git, 4)
    path = path_of(git)
    kept = clone.head()
    clone.commit("waits for its deployment")
    blob = repository.git(path, "hash-object", "-w", "--stdin", data=b"kept by a hidden ref").strip()
    repository.git(path, "update-ref", "refs/cytoplane/pushes/1", blob)
    aged(path)
    assert storage.pack(path)
    assert (loose(path), packs(path)) == (0, 1)
    assert tip(git, "refs/heads/notes") == kept
    assert repository.git(path, "cat-file", "-p", blob) == "kept by a hidden ref"
    repository.git(path, "fsck", "--strict")
    done = clone.push("main:notes")
    assert done.code == 0, done.output


def test_what_nobody_needs_goes_once_it_is_old(git: Git) -> None:
    filled(git, 2)
    path = path_of(git)
    young, old = (
        repository.git(path, "hash-object", "-w", "--stdin", data=data).strip() for data in (b"young", b"old")
    )
    then = time.time() - OLD
    os.utime(path / "objects" / old[:2] / old[2:], (then, then))
    assert storage.pack(path)
    assert repository.git(path, "cat-file", "-p", young) == "young"
    with pytest.raises(subprocess.CalledProcessError):
        repository.git(path, "cat-file", "-e", old)


def test_packing_ends_in_time_and_leaves_nothing_behind(git: Git) -> None:
    filled(git, 2)
    path = path_of(git)
    (path / "objects/pack/tmp_pack_left").write_bytes(b"half")
    before = storage.size(path)
    assert storage.pack(path, 0.0) is False
    assert not list(path.glob("objects/pack/*tmp*"))
    assert storage.size(path) <= before
    repository.git(path, "fsck", "--strict")


def test_a_repository_is_packed_by_one_at_a_time(git: Git) -> None:
    filled(git, 2)
    path = path_of(git)
    with (path / "cytoplane-pack.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert storage.pack(path) is False
    assert storage.pack(path) is True


def test_the_periodic_task_packs_what_is_scattered_and_nothing_else(
    git: Git, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(git, 2)
    path = path_of(git)
    other = git.world.project("never-pushed")
    tasks.pack_repositories()
    assert loose(path) > 0, "a few objects aren't worth it"
    monkeypatch.setattr(storage, "MANY_LOOSE", 1)
    tasks.pack_repositories()
    assert (loose(path), packs(path)) == (0, 1)
    assert not repository.path_of(git.world.acme.pk, other.pk).exists()
    assert storage.pack_scattered(iter(Project.objects.all()), 0.0) == 0


def test_a_projects_room_is_its_own(git: Git) -> None:
    filled(git, 1)
    git.world.plan.repository_mib = 1
    git.world.plan.save()
    storage.check(Project.objects.select_related("tenant__plan").get(pk=git.project.pk), path_of(git))
    (path_of(git) / "objects/pack/large").write_bytes(os.urandom(2**20))
    with pytest.raises(CytoplaneError) as caught:
        storage.check(Project.objects.select_related("tenant__plan").get(pk=git.project.pk), path_of(git))
    assert caught.value.code == "quota"
