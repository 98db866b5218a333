"""A builder's result is a claim: it ends the build well only if this project could have built it."""

from __future__ import annotations

from typing import Any

import pytest
from django.utils import timezone

from controlplane.errors import CytoplaneError
from delivery import actions, log, machine
from delivery.models import Build, Deployment, Release
from tests import factories
from tests.factories import World

pytestmark = pytest.mark.django_db
State = Deployment.State


def claimed(world: World) -> tuple[Deployment, Build, dict[str, Any]]:
    """A build that a builder holds, and the honest result of it."""
    cell = world.cell()
    deployment = world.push(cell)
    machine.advance(deployment.pk)
    build = actions.claim_build(world.builder().node)
    assert build is not None
    declared = factories.specification()
    image = f"{actions.image_prefix(cell)}@sha256:{'a' * 64}"
    result = {
        "ok": True,
        "specification": declared.as_dict(),
        "images": dict.fromkeys(declared.components, image),
    }
    return deployment, build, result


def test_an_honest_result_becomes_a_release(world: World) -> None:
    deployment, build, result = claimed(world)
    actions.finish_build(build, result)
    assert machine.advance(deployment.pk) == State.STARTING
    assert Release.objects.get().images == result["images"]


def lie(result: dict[str, Any], what: str) -> None:
    web = result["specification"]["components"]["web"]
    image = result["images"]["web"]
    if what == "replicas":
        web["replicas"] = 10**6
    elif what == "memory":
        web["limits"]["memory"] = 10**9
    elif what == "host":
        web["endpoints"]["http"]["host"] = "desk.globex"
    elif what == "connection":
        web["connections"][0]["to"] = "shop/nobody"
    elif what == "no specification":
        result["specification"] = "none"
    elif what == "no images":
        result["images"] = {}
    elif what == "another project's image":
        result["images"]["web"] = f"t1/p999@{image.partition('@')[2]}"
    elif what == "no digest":
        result["images"]["web"] = f"{image[:-1]} --privileged"


@pytest.mark.parametrize(
    "what",
    [
        "replicas",
        "memory",
        "host",
        "connection",
        "no specification",
        "no images",
        "another project's image",
        "no digest",
    ],
)
def test_a_result_that_lies_ends_the_build_with_a_reason(world: World, what: str) -> None:
    deployment, build, result = claimed(world)
    lie(result, what)
    with pytest.raises(CytoplaneError) as caught:
        actions.finish_build(build, result)
    assert caught.value.code == "build-refused"
    assert machine.advance(deployment.pk) == State.FAILED
    deployment.refresh_from_db()
    assert deployment.error_code == "build-refused"
    assert deployment.error["message"] == caught.value.message
    assert not Release.objects.exists()


def test_a_result_after_the_end_changes_nothing(world: World) -> None:
    _, build, result = claimed(world)
    Build.objects.update(state=Build.State.CANCELLED)
    actions.finish_build(build, result)
    assert (Build.objects.get().state, Build.objects.get().result) == ("cancelled", {})


def test_a_result_that_comes_just_when_the_builder_is_given_up_counts(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployment, build, result = claimed(world)
    silent = timezone.now() - 2 * machine.BUILDER_SILENCE
    Build.objects.filter(pk=build.pk).update(heartbeat_at=silent)
    look = machine._building

    def late(row: Deployment) -> None:
        assert row.build.state == Build.State.CLAIMED
        actions.finish_build(build, result)
        look(row)

    monkeypatch.setitem(machine._STEPS, State.BUILDING, late)
    assert machine.advance(deployment.pk) == State.BUILDING
    monkeypatch.undo()
    assert Build.objects.get(pk=build.pk).state == Build.State.DONE
    assert machine.advance(deployment.pk) == State.STARTING


def test_a_builder_cant_fill_the_database_with_a_log(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log, "MOST_OUTPUT", 1000)
    deployment = world.push(world.cell())
    machine.advance(deployment.pk)
    builder = world.builder()
    build = actions.claim_build(builder.node)
    assert build is not None
    for _ in range(10):
        answer = builder("POST", f"/builder/builds/{build.pk}/log", {"text": "x" * 300})
        assert answer.status_code == 200
    text = "".join(deployment.log.values_list("text", flat=True))
    assert text.count("x" * 300) == 4
    assert text.count("isn't kept") == 1
    log.say(deployment, "Healthy; switching traffic")
    assert "switching" in "".join(deployment.log.values_list("text", flat=True)), "the platform still speaks"
