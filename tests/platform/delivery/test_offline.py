"""Deployments to a plane that is offline fail or wait, as asked, and say so."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone

from controlplane.errors import CytoplaneError
from dataplane.planes import actions as planes
from dataplane.planes.models import Node
from delivery import machine, offline
from delivery.models import Deployment, Replica
from projects import actions as projects
from projects.models import Cell
from tests import factories
from tests.factories import World
from tests.queue import Queue


@pytest.fixture
def away(world: World) -> Node:
    """The plane's node was there, an hour ago."""
    node = world.agent().node
    Node.objects.update(last_seen_at=timezone.now() - timedelta(hours=1))
    return node


def wait(world: World, waits: bool = True) -> None:
    projects.set_waits(acting_user=world.actor("owner"), tenant=world.acme, name="production", waits=waits)


def advanced(deployment: Deployment) -> Deployment:
    machine.advance(deployment.pk)
    return Deployment.objects.get(pk=deployment.pk)


def text(deployment: Deployment) -> str:
    return "".join(deployment.log.order_by("pk").values_list("text", flat=True))


def test_it_fails_at_once_and_says_since_when(world: World, away: Node) -> None:
    done = advanced(world.push(world.cell()))
    assert (done.state, done.error_code) == ("failed", "plane-offline")
    away.refresh_from_db()
    assert away.last_seen_at is not None
    assert offline.moment(away.last_seen_at) in done.error["message"]


def test_it_waits_where_the_environment_says_so_and_goes_on_when_the_plane_is_back(
    world: World, away: Node, queue: Queue, django_capture_on_commit_callbacks
) -> None:
    wait(world)
    deployment = world.push(world.cell())
    assert advanced(deployment).state == "queued"
    assert advanced(deployment).state == "queued"
    assert text(deployment).count("this deployment waits for it") == 1
    with django_capture_on_commit_callbacks(execute=True):
        planes.record_health(Node.objects.get(pk=away.pk), {"healthy": True})
    queue.run()
    assert Deployment.objects.get(pk=deployment.pk).state == "building"


@pytest.mark.parametrize(("of_environment", "of_push"), [(True, False), (False, True)])
def test_a_push_asks_for_itself(world: World, away: Node, of_environment: bool, of_push: bool) -> None:
    wait(world, of_environment)
    deployment = world.push(world.cell())
    Deployment.objects.update(waits=of_push)
    assert advanced(deployment).state == ("queued" if of_push else "failed")


def test_a_plane_that_goes_away_in_the_middle_stops_the_clock_of_who_waits(world: World) -> None:
    node = world.agent().node
    Node.objects.update(last_seen_at=timezone.now())
    wait(world)
    cell: Cell = world.cell()
    deployment = world.push(cell)
    machine.advance(deployment.pk)
    factories.built(deployment)
    assert advanced(deployment).state == "starting"
    assert Replica.objects.exists()
    long_ago = timezone.now() - timedelta(hours=2)
    Node.objects.filter(pk=node.pk).update(last_seen_at=long_ago)
    Deployment.objects.update(state_since=long_ago)
    still = advanced(deployment)
    assert still.state == "starting"
    assert timezone.now() - still.state_since < timedelta(minutes=1), "the time counts anew"
    wait(world, False)
    Deployment.objects.update(state_since=long_ago)
    assert advanced(deployment).error_code == "plane-offline"


def test_a_plane_that_was_never_heard_of_isnt_offline(world: World) -> None:
    world.agent()
    assert advanced(world.push(world.cell())).state == "building"


def test_options_of_a_push_are_few(world: World) -> None:
    assert [offline.option(words) for words in ([], ["wait"], ["no-wait"], ["wait", "no-wait"])] == [
        None, True, False, False,
    ]  # fmt: skip
    with pytest.raises(CytoplaneError, match="no option of a push"):
        offline.option(["ci.skip"])
