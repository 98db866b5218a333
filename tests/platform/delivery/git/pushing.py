"""A push and what becomes of its deployment meanwhile."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from delivery import machine
from delivery.git import repository
from delivery.models import Build, Deployment, Push
from tests.platform.delivery.git.conftest import Git, Pushed


def during(push: Callable[[], Pushed], work: Callable[[Deployment], None]) -> Pushed:
    """Push, and do ``work`` with its deployment while the pusher waits."""
    results: list[Pushed] = []
    thread = threading.Thread(target=lambda: results.append(push()))
    before = set(Deployment.objects.values_list("pk", flat=True))
    thread.start()
    try:
        end = time.monotonic() + 30
        while time.monotonic() < end:
            new = Deployment.objects.exclude(pk__in=before).first()
            if new is not None and Push.objects.filter(deployment=new).exists():
                work(new)
                break
            assert thread.is_alive(), results
            time.sleep(0.02)
    finally:
        thread.join(40)
    assert results, "the push never ended"
    return results[0]


def live(git: Git) -> Callable[[Deployment], None]:
    return lambda deployment: (git.world.carry(deployment), None)[1]


def fail(deployment: Deployment) -> None:
    machine.advance(deployment.pk)
    Build.objects.filter(deployment=deployment).update(state="failed", result={"error": {}})
    machine.advance(deployment.pk)


def refs(git: Git) -> dict[str, str]:
    path = repository.path_of(git.world.acme.pk, git.project.pk)
    lines = repository.git(path, "for-each-ref", "--format=%(refname) %(objectname)").splitlines()
    return {name: commit for name, _, commit in (line.partition(" ") for line in lines)}
