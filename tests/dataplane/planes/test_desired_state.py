"""Desired state on its way to a node: long polls, secrets only on the wire, nobody else's."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import httpx
import pytest
from django.db import connection

from dataplane.desired import joined
from dataplane.planes import actions, polling, snapshots
from dataplane.planes.agents_asgi import application
from dataplane.planes.models import Node, Plane, Snapshot, Unit
from delivery import machine
from delivery.models import Deployment
from projects import actions as projects
from projects.models import Cell
from tests import factories
from tests.dataplane.planes.conftest import Bare
from tests.factories import NodeClient, World
from tests.queue import Queue

pytestmark = pytest.mark.usefixtures("installation")
SECRET = "a value that must not rest"


async def ask(node: NodeClient, **parameters: Any) -> httpx.Response:
    """Poll through the agents' own application, as the control gateway does."""
    headers = {"X-Forwarded-Client-Cert": f"Hash={await asyncio.to_thread(_fingerprint, node)}"}
    transport = httpx.ASGITransport(app=application)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost", timeout=20) as client:
        return await client.get("/agent/desired", params=parameters, headers=headers)


def _fingerprint(node: NodeClient) -> str:
    try:
        return node.certificate.fingerprint
    finally:
        connection.close()


def poll(node: NodeClient, **parameters: Any) -> httpx.Response:
    return asyncio.run(ask(node, **parameters))


@pytest.fixture
def running(committed_world: World) -> Cell:
    cell = committed_world.cell()
    projects.set_variables(acting_user=committed_world.actor(), cell=cell, secrets={"TOKEN": SECRET})
    committed_world.deploy(cell)
    return cell


def test_secrets_are_in_what_is_sent_and_never_in_what_is_kept(committed_world: World, running: Cell) -> None:
    document = joined(poll(committed_world.agent()).json()["units"].values())
    environments = [endpoint["process"]["environment"] for endpoint in document["endpoints"]]
    assert environments and all(found["TOKEN"] == SECRET for found in environments)
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM planes_unit WHERE planes_unit::text LIKE %s", [f"%{SECRET}%"])
        assert cursor.fetchone()[0] == 0


def test_an_answer_comes_at_once_only_if_the_node_has_another_generation(
    committed_world: World, running: Cell
) -> None:
    node = committed_world.agent()
    document = poll(node, generation=0, wait=0).json()
    newest = Plane.objects.get(pk=committed_world.plane.pk).generation
    assert document["generation"] == newest
    same = poll(node, generation=newest, wait=0)
    assert (same.status_code, same.content) == (304, b"")
    ahead = poll(node, generation=newest + 7, wait=0)
    assert ahead.json()["generation"] == newest, "a node with the state of another database gets this one"


def test_a_node_gets_what_changed_since_what_it_has(committed_world: World, running: Cell) -> None:
    node = committed_world.agent()
    first = poll(node).json()
    assert first["base"] == 0
    cell = committed_world.cell(committed_world.project("second"))
    committed_world.deploy(cell)
    snapshots.rebuild(committed_world.plane.pk)
    have = {"generation": first["generation"], "mark": first["mark"]}
    answer = poll(node, **have).json()
    assert answer["base"] == first["generation"]
    assert set(answer["units"]) == {str(n) for n in cell.project.cells.values_list("number", flat=True)}
    projects.destroy_project(
        acting_user=committed_world.actor(), project=cell.project, confirm=cell.project.slug
    )
    snapshots.rebuild(committed_world.plane.pk)
    last = poll(node, generation=answer["generation"], mark=answer["mark"]).json()
    assert (last["units"], last["removed"]) == ({}, sorted(answer["units"], key=int))


def test_a_generation_of_another_database_is_no_base(committed_world: World, running: Cell) -> None:
    node = committed_world.agent()
    newest = poll(node).json()
    for generation in (newest["generation"], newest["generation"] - 1, newest["generation"] + 5):
        answer = poll(node, generation=generation, mark="0123456789abcdef").json()
        assert answer["base"] == 0
        assert answer["units"].keys() == newest["units"].keys()


def test_a_poll_wakes_when_something_changes(committed_world: World, running: Cell) -> None:
    node = committed_world.agent()
    plane = committed_world.plane
    generation = Plane.objects.get(pk=plane.pk).generation

    def change() -> int:
        try:
            project = committed_world.project("second")
            committed_world.deploy(committed_world.cell(project))
            return snapshots.rebuild(plane.pk)
        finally:
            connection.close()

    async def both() -> tuple[httpx.Response, float]:
        begun = time.monotonic()
        waiting = asyncio.create_task(ask(node, generation=generation, wait=25))
        await asyncio.sleep(0.3)
        assert not waiting.done()
        await asyncio.to_thread(change)
        return await waiting, time.monotonic() - begun

    answer, seconds = asyncio.run(both())
    assert answer.json()["generation"] > generation
    assert seconds < 20, "it waited to the end"


def test_a_node_has_no_more_polls_open_than_it_needs(
    transactional_db: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(polling, "MOST_OPEN", 2)
    bare = Bare()
    greedy, other = bare.agent(), bare.builder()

    async def together() -> tuple[list[int], int]:
        polls = [asyncio.create_task(ask(greedy, wait=2)) for _ in range(3)]
        await asyncio.sleep(1)
        headers = {"X-Forwarded-Client-Cert": f"Hash={await asyncio.to_thread(_fingerprint, other)}"}
        transport = httpx.ASGITransport(app=application)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            elsewhere = await client.post("/builder/builds/1/heartbeat", json={}, headers=headers)
        return sorted([(await one).status_code for one in polls]), elsewhere.status_code

    assert asyncio.run(together()) == ([304, 304, 409], 200)
    assert poll(greedy).status_code == 304, "they are closed again"
    assert not polling._open


def test_parameters_that_arent_numbers_are_the_senders_error(transactional_db: None) -> None:
    node = Bare().agent()
    for wait in ("nan", "-1", "-inf", "0"):
        assert poll(node, generation=0, wait=wait).status_code == 304, wait
    for wrong in ({"generation": "x"}, {"generation": "9" * 5000}, {"generation": "1.5"}, {"wait": "x"}):
        answer = poll(node, **wrong)
        assert (answer.status_code, answer.json()["error"]["id"]) == (422, "invalid")


def test_a_plane_gets_only_its_own(committed_world: World, running: Cell) -> None:
    other = Plane.objects.create(name="other", engine=Plane.Engine.MACHINE)
    snapshots.rebuild(other.pk)
    answer = poll(committed_world.agent(other, "node-2")).json()
    document = joined(answer["units"].values())
    assert (answer["plane"], document["endpoints"]) == (other.pk, [])
    text = json.dumps(document)
    for foreign in ("acme", "shop", SECRET, str(running.gateway_identity)):
        assert foreign not in text or foreign.isdigit()
    assert str(running.gateway_identity) not in document["boundary"]["identities"]


def test_certificates_of_others_get_no_state(committed_world: World, running: Cell) -> None:
    assert poll(committed_world.builder()).status_code == 401
    node = committed_world.agent()
    Node.objects.get(pk=node.node.pk).certificates.update(fingerprint="f" * 64)
    found = factories.NodeClient(node.node)
    assert poll(found).status_code == 200
    node.node.certificates.update(revoked_at="2020-01-01T00:00:00Z")
    assert poll(found).status_code == 401


def test_a_snapshot_is_numbered_only_if_something_changed(world: World) -> None:
    first = snapshots.rebuild(world.plane.pk)
    assert snapshots.rebuild(world.plane.pk) == first
    world.deploy(world.cell())
    later = snapshots.rebuild(world.plane.pk)
    assert later > first
    assert snapshots.rebuild(world.plane.pk) == later


def strict(world: World, cell: Cell, on: bool) -> None:
    projects.set_strict(acting_user=world.actor(), project=cell.project, strict=on)


def test_differences_are_known_for_the_newest_generations_alone(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshots, "KEPT", 5)
    monkeypatch.setattr(snapshots, "FORGET", 2)
    cell = world.cell()
    world.deploy(cell)
    gone = world.project("gone")
    numbers = list(gone.cells.values_list("number", flat=True))
    snapshots.rebuild(world.plane.pk)
    projects.destroy_project(acting_user=world.actor(), project=gone, confirm="gone")
    taken = snapshots.rebuild(world.plane.pk)
    node = {row.generation: row.mark for row in Snapshot.objects.filter(plane=world.plane)}[taken]
    for number in range(12):
        strict(world, cell, number % 2 == 0)
        newest = snapshots.rebuild(world.plane.pk)
        kept = sorted(Snapshot.objects.filter(plane=world.plane).values_list("generation", flat=True))
        assert kept == list(range(kept[0], newest + 1)) and kept[0] <= max(1, newest - 4)
        assert len(kept) <= snapshots.KEPT + snapshots.FORGET
        answer = snapshots.newest(world.plane.pk, taken, node)
        assert answer is not None
        assert answer["base"] == (taken if taken in kept else 0), "what is forgotten is no base"
    assert taken not in kept
    assert not Unit.objects.filter(number__in=numbers).exists(), "nobody has to be told any more"


def test_a_plane_that_is_gone_is_nobodys(bare: Bare) -> None:
    assert snapshots.rebuild(10**9) == 0


# Acknowledging.


def acknowledge(node: NodeClient, **document: Any) -> int:
    answer = node("POST", "/agent/acknowledge", document)
    assert answer.status_code == 200, answer.content
    node.node.refresh_from_db()
    return node.node.acknowledged


@pytest.mark.parametrize(
    "generation", ["1", None, 1.0, True, [1], {}, -1, -(10**7), -(10**30), 10**30, 1e999, "\x00"]
)
def test_what_wasnt_sent_cant_be_acknowledged(bare: Bare, generation: Any) -> None:
    snapshots.rebuild(bare.plane.pk)
    node = bare.agent()
    assert acknowledge(node, generation=generation, applied=True) == 0


def test_the_future_cant_be_acknowledged(bare: Bare) -> None:
    node = bare.agent()
    newest = snapshots.rebuild(bare.plane.pk)
    assert acknowledge(node, generation=newest + 1, applied=True) == 0
    assert acknowledge(node, generation=newest, applied=False) == 0
    assert acknowledge(node, generation=newest, applied="yes") == 0
    assert acknowledge(node, generation=newest, applied=True) == newest
    assert acknowledge(node, generation=newest - 1, applied=True) == newest, "late words change nothing"


def test_of_two_acknowledgements_at_once_the_further_one_counts(bare: Bare) -> None:
    """An agent acknowledges from two threads, and each request has read its node before the other wrote."""
    earlier, newest = snapshots.rebuild(bare.plane.pk), 7
    Plane.objects.filter(pk=bare.plane.pk).update(generation=newest)
    node = bare.agent().node
    first, second = (Node.objects.get(pk=node.pk) for _ in range(2))
    actions.acknowledge(first, newest, [])
    actions.acknowledge(second, earlier, [])
    node.refresh_from_db()
    assert node.acknowledged == newest


def test_acknowledging_wakes_the_deployments_that_wait_for_it(
    world: World, queue: Queue, django_capture_on_commit_callbacks: Any
) -> None:
    node = world.agent()
    plane = Plane.objects.create(name="other", engine=Plane.Engine.MACHINE, generation=10**6)
    other = world.agent(plane, "node-2")
    deployment = world.push(world.cell())
    machine.advance(deployment.pk)
    factories.built(deployment)
    machine.advance(deployment.pk)
    deployment.refresh_from_db()
    factories.healthy(deployment)
    assert machine.advance(deployment.pk) == Deployment.State.SWITCHING
    machine.advance(deployment.pk)
    deployment.refresh_from_db()
    awaited = deployment.awaited_generation
    assert awaited
    queue.clear()
    for somebody, generation in ((other, awaited), (node, awaited - 1)):
        with django_capture_on_commit_callbacks(execute=True):
            acknowledge(somebody, generation=generation, applied=True)
        assert not queue.waiting("delivery.advance")
    with django_capture_on_commit_callbacks(execute=True):
        acknowledge(node, generation=awaited, applied=True)
    assert [task.arguments for task in queue.waiting("delivery.advance")] == [(deployment.pk,)]
    queue.run()
    deployment.refresh_from_db()
    assert deployment.state != Deployment.State.SWITCHING
