"""Where a public host leads while a release is on its way, when it serves and when it failed."""

from __future__ import annotations

from typing import Any

import pytest

from controlplane.errors import CytoplaneError
from dataplane.planes import snapshots
from delivery import actions, machine, tasks
from delivery.models import Build, Deployment, Replica
from projects.models import Cell, Host
from tests import factories
from tests.factories import World

pytestmark = pytest.mark.django_db
State = Deployment.State
HOST = "desk.acme.localhost"


def declared(component: str, host: str = "desk", **more: str) -> str:
    """A component with a public host, and others with an endpoint for their cell alone."""
    text = f"components:\n  {component}: {{command: x, endpoints: {{http: {{port: 80, visibility: public, host: {host}}}}}}}\n"
    for name, visibility in more.items():
        text += f"  {name}: {{command: x, endpoints: {{http: {{port: 80, visibility: {visibility}}}}}}}\n"
    return text


def gateway(world: World) -> dict[str, Any]:
    snapshots.rebuild(world.plane.pk)
    return snapshots.whole(world.plane.pk)["boundary"]["gateway"]


def leads_to(world: World, host: str = HOST) -> str:
    """The component that gets the host's requests, with the number of its backends; "" for nobody."""
    found = gateway(world)
    clusters = [route["cluster"] for route in found["routes"] if route["host"] == host]
    if not clusters:
        return ""
    (cluster,) = [entry for entry in found["clusters"] if entry["name"] == clusters[0]]
    ids = {int(backend[0][1:]) for backend in cluster["backends"]}
    names = set(Replica.objects.filter(pk__in=ids).values_list("workload__component__name", flat=True))
    return "+".join(sorted(names))


def started(world: World, cell: Cell, text: str) -> Deployment:
    deployment = world.push(cell)
    machine.advance(deployment.pk)
    factories.built(deployment, text)
    assert machine.advance(deployment.pk) == State.STARTING
    deployment.refresh_from_db()
    return deployment


def test_a_host_leads_where_it_led_until_the_release_that_moves_it_serves(world: World) -> None:
    cell = world.cell()
    world.deploy(cell, declared("old"))
    assert leads_to(world) == "old"
    deployment = started(world, cell, declared("new"))
    assert leads_to(world) == "old"
    world.finish(deployment)
    assert leads_to(world) == "new"
    assert Host.objects.get().name == HOST


def test_a_release_that_fails_moves_no_host_and_keeps_none(world: World) -> None:
    cell = world.cell()
    world.deploy(cell, declared("old"))
    deployment = started(world, cell, declared("new") + declared("also", "counter").partition("\n")[2])
    assert set(Host.objects.values_list("name", flat=True)) == {HOST, "counter.acme.localhost"}
    assert leads_to(world, "counter.acme.localhost") == "", "nothing of it serves yet"
    Replica.objects.filter(release=deployment.release).update(phase="failed")
    assert machine.advance(deployment.pk) == State.FAILED
    assert leads_to(world) == "old"
    assert list(Host.objects.values_list("name", flat=True)) == [HOST]


def test_a_name_is_taken_from_the_release_on(world: World) -> None:
    cell, other = world.cell(), world.cell(world.project("other"))
    first = started(world, cell, declared("web"))
    second = world.push(other)
    machine.advance(second.pk)
    factories.built(second, declared("web"))
    assert machine.advance(second.pk) == State.FAILED
    second.refresh_from_db()
    assert second.error_code == "host-taken"
    actions.cancel(acting_user=world.actor(), deployment=first)
    assert machine.advance(first.pk) == State.CANCELLED
    world.deploy(other, declared("web"))
    assert Host.objects.get().cell == other


def test_a_retry_reserves_again_what_was_given_back(world: World) -> None:
    cell, other = world.cell(), world.cell(world.project("other"))
    failed = started(world, cell, declared("web"))
    Replica.objects.update(phase="failed")
    assert machine.advance(failed.pk) == State.FAILED
    failed.refresh_from_db()
    again = actions.retry(acting_user=world.actor(), deployment=failed)
    assert Host.objects.get().cell == cell
    actions.cancel(acting_user=world.actor(), deployment=again)
    assert machine.advance(again.pk) == State.CANCELLED
    world.deploy(other, declared("web"))
    with pytest.raises(CytoplaneError) as caught:
        actions.retry(acting_user=world.actor(), deployment=failed)
    assert caught.value.code == "host-taken"


def test_what_a_superseded_release_reserved_is_given_back_by_the_sweep(world: World) -> None:
    cell = world.cell()
    world.deploy(cell, declared("web"))
    world.deploy(cell, declared("web", "counter"))
    busy = world.push(cell)
    machine.advance(busy.pk)
    actions.rollback(acting_user=world.actor(), cell=cell, number=1)
    assert Host.objects.get(name=HOST).endpoint is None
    tasks.sweep()
    assert Host.objects.filter(name=HOST).exists(), "it waits for its turn"
    world.push(cell)
    tasks.sweep()
    assert list(Host.objects.values_list("name", flat=True)) == ["counter.acme.localhost"]
    Build.objects.all().delete()


@pytest.mark.parametrize("more", [{}, {"old": "cell"}], ids=["renamed", "behind another"])
def test_the_gateway_can_move_a_host_without_a_moment_in_which_it_leads_nowhere(
    world: World, more: dict[str, str]
) -> None:
    """Backends and clusters change before routes do, and routes before what they left is gone."""
    cell = world.cell()
    world.deploy(cell, declared("old"))
    before = gateway(world)
    (route,) = [entry for entry in before["routes"] if entry["host"] == HOST]
    deployment = started(world, cell, declared("new", **more))
    coming = {entry["name"] for entry in gateway(world)["clusters"]}
    factories.healthy(deployment)
    assert machine.advance(deployment.pk) == State.SWITCHING
    after = gateway(world)
    (moved,) = [entry for entry in after["routes"] if entry["host"] == HOST]
    assert moved["cluster"] != route["cluster"]
    assert moved["cluster"] in coming, "Envoy knows it already"
    backends = {entry["name"]: entry["backends"] for entry in after["clusters"]}
    assert backends[moved["cluster"]]
    assert backends[route["cluster"]], "a request that still goes there is answered"
    factories.acknowledge(world.plane)
    factories.drained(deployment)
    assert route["cluster"] not in {entry["name"] for entry in gateway(world)["clusters"]}
