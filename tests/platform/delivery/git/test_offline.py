"""A push says for itself what to do while its plane is offline, with git on both ends."""

from __future__ import annotations

from datetime import timedelta

from django.utils import timezone

from dataplane.planes.models import Node
from delivery import machine
from delivery.models import Deployment
from tests.factories import World
from tests.platform.delivery.git.conftest import Clone, Git, Pushed
from tests.platform.delivery.git.pushing import during


def away(world: World) -> None:
    world.agent()
    Node.objects.update(last_seen_at=timezone.now() - timedelta(hours=1))


def test_a_push_that_asks_for_it_waits_and_says_so(git: Git) -> None:
    away(git.world)
    clone = git.clone()
    clone.commit("one", Dockerfile="FROM scratch\n")
    seen: list[str] = []

    def look(deployment: Deployment) -> None:
        machine.advance(deployment.pk)
        seen.append(Deployment.objects.get(pk=deployment.pk).state)
        Node.objects.update(last_seen_at=timezone.now())
        git.world.carry(deployment)

    done = during(lambda: clone.push("-o", "wait", "main"), look)
    assert seen == ["queued"]
    assert done.code == 0, done.output
    assert "this deployment waits for it" in done.output


def test_one_that_doesnt_fails_and_the_branch_stays(git: Git) -> None:
    away(git.world)
    clone: Clone = git.clone()
    clone.commit("one", Dockerfile="FROM scratch\n")
    done: Pushed = during(clone.push, lambda deployment: (machine.advance(deployment.pk), None)[1])
    assert done.code != 0
    assert "offline since" in done.output
    assert "plane-offline" in done.output


def test_other_options_are_refused_before_anything_is_kept(git: Git) -> None:
    clone = git.clone()
    clone.commit("one", Dockerfile="FROM scratch\n")
    done = clone.push("-o", "ci.skip", "main")
    assert done.code != 0
    assert "is no option of a push" in done.output
    assert not Deployment.objects.exists()
