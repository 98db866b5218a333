"""Sessions from the request to the end: who may, what each side hears, and how they end."""

from __future__ import annotations

import asyncio
import base64
import json
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from controlplane.errors import CytoplaneError
from dataplane.planes.models import Plane
from delivery.models import Replica
from execution import actions, queries, relay
from execution.models import Session
from projects.models import Cell
from tenants.models import AuditEvent
from tests.factories import NodeClient, World

pytestmark = pytest.mark.django_db
CELL = "/tenants/acme/projects/shop/environments/production"


@pytest.fixture
def cell(world: World) -> Cell:
    made = world.cell()
    world.deploy(made)
    return made


def begun(world: World, cell: Cell, *command: str, role: str = "developer", **more: Any) -> Session:
    return actions.open_session(
        acting_user=world.actor(role), cell=cell, component="api", command=list(command or ("id",)), **more
    )


def text(data: str) -> str:
    return base64.b64encode(data.encode()).decode()


def read(answer: Any) -> dict[str, Any]:
    """The document of an answer that comes late, as from the server."""

    async def whole() -> bytes:
        return b"".join([piece async for piece in answer.streaming_content])

    assert answer.status_code == 200
    return json.loads(asyncio.run(whole()))


def refused(error: CytoplaneError) -> tuple[str, str]:
    return error.code, error.message


def test_what_is_typed_reaches_the_agent_and_what_is_printed_the_person(world: World, cell: Cell) -> None:
    api, agent = world.api("developer"), world.agent()
    opened = api.post(f"{CELL}/sessions", {"component": "api", "command": ["sh", "-c", "cat"]}).json()
    one, node_one = f"{CELL}/sessions/{opened['id']}", f"/agent/sessions/{opened['id']}"
    assert queries.offered(agent.node) == [opened["id"]]
    taken = agent("POST", f"{node_one}/claim", {}).json()
    replica = Replica.objects.get(workload__cell=cell, workload__component__name="api")
    assert (taken["command"], taken["replica"], taken["tty"]) == (
        ["sh", "-c", "cat"],
        f"r{replica.pk}",
        False,
    )
    assert api.post(f"{one}/input", {"number": 1, "data": text("hello")}).json() == {"taken": True}
    assert api.post(f"{one}/input", {"number": 2, "end": True}).json() == {"taken": True}
    client = relay.connection()
    asyncio.run(pulled(opened["id"], relay.INPUT, [{"data": text("hello")}, {"end": True}]))
    said = agent("POST", f"{node_one}/output", {"number": 1, "stream": "out", "data": text("hello")}).json()
    assert said == {"taken": True, "over": False}
    agent("POST", f"{node_one}/end", {"exit_code": 3})
    row = Session.objects.get(pk=opened["id"])
    assert (row.state, row.exit_code, row.reason) == ("ended", 3, "")
    asyncio.run(pulled(opened["id"], relay.OUTPUT, [{"stream": "out", "data": text("hello")}]))
    assert client.ttl(f"cytoplane:session:{row.pk}:out") > 0


async def pulled(session: int, stream: str, expected: list[dict[str, Any]]) -> None:
    found = await relay.pull(session, stream, 0, 0.1)
    assert (found.pieces, found.last) == (expected, len(expected))


def test_the_command_is_in_no_row_and_told_to_one_agent_once(world: World, cell: Cell) -> None:
    session = begun(world, cell, "psql", "--password=hunter2")
    agent = world.agent()
    first = agent("POST", f"/agent/sessions/{session.pk}/claim", {})
    assert first.json()["command"] == ["psql", "--password=hunter2"]
    assert agent("POST", f"/agent/sessions/{session.pk}/claim", {}).status_code == 404
    agent("POST", f"/agent/sessions/{session.pk}/end", {"exit_code": 0})
    everything = str(list(Session.objects.values())) + str(list(AuditEvent.objects.values()))
    assert "hunter2" not in everything
    kept = relay.connection()
    assert not any(b"hunter2" in (kept.dump(key) or b"") for key in kept.keys("*"))


def test_begin_and_end_are_audited_without_the_arguments(world: World, cell: Cell) -> None:
    session = begun(world, cell, "psql", "secret")
    actions.finish(session.pk, exit_code=1)
    begin, end = AuditEvent.objects.filter(verb__startswith="session.").order_by("pk")
    assert (begin.verb, begin.changes["program"], begin.changes["words"]) == ("session.begin", "psql", 2)
    assert (end.verb, end.changes["exit_code"], end.actor) == ("session.end", 1, begin.actor)


def test_viewers_and_strangers_run_nothing(world: World, cell: Cell) -> None:
    body = {"component": "api", "command": ["id"]}
    assert world.api("viewer").post(f"{CELL}/sessions", body).json()["error"]["id"] == "forbidden"
    assert world.api("owner", "globex").post(f"{CELL}/sessions", body).status_code == 404
    assert not Session.objects.exists()


def test_nobody_reads_along(world: World, cell: Cell) -> None:
    session = begun(world, cell)
    for role in ("admin", "owner"):
        answer = world.api(role).get(f"{CELL}/sessions/{session.pk}/output")
        assert answer.status_code == 404
        typed = world.api(role).post(f"{CELL}/sessions/{session.pk}/input", {"number": 1, "data": text("x")})
        assert typed.status_code == 404


def test_other_planes_and_other_nodes_agents_see_nothing_of_it(world: World, cell: Cell) -> None:
    other = Plane.objects.create(name="other", engine=Plane.Engine.MACHINE)
    session = begun(world, cell)
    stranger = world.agent(other, "node-9")
    assert queries.offered(stranger.node) == []
    assert stranger("POST", f"/agent/sessions/{session.pk}/claim", {}).status_code == 404
    mine = world.agent()
    assert mine("POST", f"/agent/sessions/{session.pk}/claim", {}).status_code == 200
    for path, body in (("output", {"number": 1, "stream": "out", "data": ""}), ("end", {"exit_code": 0})):
        assert stranger("POST", f"/agent/sessions/{session.pk}/{path}", body).status_code == 404
    assert Session.objects.get().state == "running"


def test_on_a_cluster_only_the_replicas_node_is_asked(world: World, cell: Cell) -> None:
    Plane.objects.filter(pk=world.plane.pk).update(engine=Plane.Engine.KUBERNETES)
    with pytest.raises(CytoplaneError, match="hasn't said yet"):
        begun(world, cell)
    Replica.objects.update(detail={"node": "node-2"})
    session = begun(world, cell)
    nodes = [world.agent(name=name) for name in ("node-1", "node-2")]
    assert [queries.offered(agent.node) for agent in nodes] == [[], [session.pk]]
    assert nodes[0]("POST", f"/agent/sessions/{session.pk}/claim", {}).status_code == 404


def test_only_what_runs_is_entered(world: World, cell: Cell) -> None:
    for body, error in (
        ({"component": "nothing"}, "not-found"),
        ({"component": "a\ud800"}, "invalid"),
        ({"component": "api", "replica": 7}, "not-found"),
        ({"component": "api", "command": []}, "invalid"),
        ({"component": "api", "command": ["a\0b"]}, "invalid"),
        ({"component": "api", "command": ["a\ud800"]}, "invalid"),
        ({"component": "api", "command": ["x" * 20000]}, "invalid"),
        ({"component": "api", "rows": 0}, "invalid"),
    ):
        answer = world.api("developer").post(f"{CELL}/sessions", {"command": ["id"], **body})
        assert answer.json()["error"]["id"] == error, body
    Replica.objects.update(phase=Replica.Phase.FAILED)
    with pytest.raises(CytoplaneError, match="No replica of api runs"):
        begun(world, cell)


def test_a_person_has_a_bounded_number_of_them(world: World, cell: Cell) -> None:
    opened = [begun(world, cell) for _ in range(actions.MOST_OF_PERSON)]
    with pytest.raises(CytoplaneError, match="which is the limit"):
        begun(world, cell)
    actions.finish(opened[0].pk)
    begun(world, cell)


def test_who_writes_faster_than_the_other_reads_waits(world: World, cell: Cell) -> None:
    session, client = begun(world, cell), relay.connection()
    piece = {"stream": "out", "data": ""}
    taken = [relay.push(client, session.pk, relay.OUTPUT, n, piece) for n in range(1, relay.MOST_PIECES + 2)]
    assert taken == [True] * relay.MOST_PIECES + [False]
    found = asyncio.run(relay.pull(session.pk, relay.OUTPUT, 0, 0.1))
    asyncio.run(relay.pull(session.pk, relay.OUTPUT, found.last, 0.1))
    assert relay.push(client, session.pk, relay.OUTPUT, relay.MOST_PIECES + 1, piece)


def test_a_piece_that_is_sent_again_counts_once(world: World, cell: Cell) -> None:
    session, client = begun(world, cell), relay.connection()
    for _ in range(2):
        assert relay.push(client, session.pk, relay.INPUT, 1, {"data": text("x")})
    assert len(asyncio.run(relay.pull(session.pk, relay.INPUT, 0, 0.1)).pieces) == 1


@pytest.mark.parametrize(
    "body", [{"data": "%"}, {"data": text("x" * 40000)}, {"signal": "STOP"}, {"size": [0, 1]}]
)
def test_input_that_cant_be_is_refused(world: World, cell: Cell, body: dict[str, Any]) -> None:
    session = begun(world, cell)
    answer = world.api("developer").post(f"{CELL}/sessions/{session.pk}/input", {"number": 1, **body})
    assert answer.status_code in (413, 422)


@pytest.mark.parametrize(
    "body", [{"data": "%"}, {"data": text("x" * 40000)}, {"stream": "in"}, {"number": 0}]
)
def test_output_that_cant_be_is_refused(world: World, cell: Cell, body: dict[str, Any]) -> None:
    session, agent = begun(world, cell), world.agent()
    agent("POST", f"/agent/sessions/{session.pk}/claim", {})
    whole = {"number": 1, "stream": "out", "data": "", **body}
    assert agent("POST", f"/agent/sessions/{session.pk}/output", whole).status_code in (413, 422)


# Ends.


def running(world: World, cell: Cell) -> tuple[Session, NodeClient]:
    session, agent = begun(world, cell), world.agent()
    agent("POST", f"/agent/sessions/{session.pk}/claim", {})
    session.refresh_from_db()
    return session, agent


def reason(session: Session) -> str:
    session.refresh_from_db()
    return session.reason if session.state == "ended" else "it goes on"


@pytest.mark.parametrize(
    ("asks", "gone", "why"),
    [
        (relay.AGENT, relay.CLIENT, "The person's side is gone."),
        (relay.CLIENT, relay.AGENT, "The agent of its node is gone."),
    ],
)
def test_it_ends_when_the_other_side_is_gone(
    world: World, cell: Cell, asks: str, gone: str, why: str
) -> None:
    session, _ = running(world, cell)
    assert actions.look(session, asks)
    relay.connection().delete(f"cytoplane:session:{session.pk}:{gone}")
    assert not actions.look(session, asks)
    assert reason(session) == why


def test_a_connection_that_ended_may_come_again_for_a_moment(world: World, cell: Cell) -> None:
    session, _ = running(world, cell)
    asyncio.run(relay.leaving(session.pk, relay.CLIENT))
    left = relay.connection().ttl(f"cytoplane:session:{session.pk}:client")
    assert 0 < left <= relay.LEAVING_SECONDS
    assert actions.look(session, relay.CLIENT)
    assert relay.connection().ttl(f"cytoplane:session:{session.pk}:client") > relay.LEAVING_SECONDS


def test_it_ends_when_redis_has_forgotten_it(world: World, cell: Cell) -> None:
    session, _ = running(world, cell)
    relay.connection().flushall()
    assert not actions.look(session, relay.CLIENT)
    assert "started anew" in reason(session)


def test_it_ends_when_redis_is_away(world: World, cell: Cell, settings: Any) -> None:
    session, _ = running(world, cell)
    settings.REDIS_URL = "unix:///nowhere/redis.sock"
    assert not actions.look(session, relay.CLIENT)
    assert "doesn't answer" in reason(session)
    with pytest.raises(CytoplaneError) as error:
        begun(world, cell)
    assert error.value.code == "unavailable"


def test_it_ends_when_nothing_is_said_or_time_is_over(world: World, cell: Cell) -> None:
    session, _ = running(world, cell)
    relay.connection().set(f"cytoplane:session:{session.pk}:moved", "1.0")
    assert not actions.look(session, relay.AGENT)
    assert reason(session) == "Nothing was said for 15 minutes."
    session, _ = running(world, cell)
    Session.objects.filter(pk=session.pk).update(created_at=timezone.now() - timedelta(hours=5))
    session.refresh_from_db()
    assert not actions.look(session, relay.AGENT)
    assert "4 hours" in reason(session)


def test_it_ends_when_no_agent_takes_it(world: World, cell: Cell) -> None:
    session = begun(world, cell)
    assert actions.look(session, relay.CLIENT)
    session.created_at -= timedelta(minutes=1)
    assert not actions.look(session, relay.CLIENT)
    assert "offline" in reason(session)


def test_an_agent_that_begins_anew_has_none(world: World, cell: Cell) -> None:
    session, agent = running(world, cell)
    assert actions.restarted(agent.node) == 1
    assert "started anew" in reason(session)


def test_what_both_sides_forgot_is_swept(world: World, cell: Cell) -> None:
    session, _ = running(world, cell)
    assert actions.sweep() == 0
    relay.connection().flushall()
    Session.objects.update(created_at=timezone.now() - timedelta(minutes=1))
    assert actions.sweep() == 1
    assert reason(session) == "Both sides are gone."
    Session.objects.update(ended_at=timezone.now() - timedelta(days=40))
    actions.sweep()
    assert not Session.objects.exists()


def test_a_colleague_may_end_it(world: World, cell: Cell) -> None:
    session, agent = running(world, cell)
    assert world.api("viewer").post(f"{CELL}/sessions/{session.pk}/end").status_code == 403
    answer = world.api("admin").post(f"{CELL}/sessions/{session.pk}/end").json()
    assert (answer["state"], answer["reason"]) == ("ended", f"It was ended by {world.person('admin').email}.")
    assert agent(
        "POST", f"/agent/sessions/{session.pk}/output", {"number": 1, "stream": "out", "data": ""}
    ).json()["over"]
    assert AuditEvent.objects.filter(verb="session.end").count() == 1
