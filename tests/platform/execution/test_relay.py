"""What waits in Redis for its reader: bounded, all of it or told to be lost, and gone once it is read."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
import redis
from django.utils import timezone

from controlplane.errors import CytoplaneError
from dataplane.planes import polling
from execution import actions, relay
from execution.models import Session
from projects.models import Cell
from tests.factories import NodeClient, World
from tests.platform.execution.test_sessions import CELL, begun, cell, read, running, text

pytestmark = pytest.mark.django_db
__all__ = ["cell"]
#: What is asked about a session is read by another thread.
committed = pytest.mark.django_db(transaction=True)


def said(agent: NodeClient, session: Session, number: int, data: str) -> Any:
    document = {"number": number, "stream": "out", "data": text(data)}
    return agent("POST", f"/agent/sessions/{session.pk}/output", document)


def asked(world: World, session: Session, **more: Any) -> dict[str, Any]:
    query = "&".join(f"{key}={value}" for key, value in more.items())
    return read(world.api("developer").get(f"{CELL}/sessions/{session.pk}/output?{query}"))


def ended(world: World, cell: Cell, *words: str) -> Session:
    """One that has printed these and ended by itself; nobody has read them."""
    session, agent = running(world, cell)
    for number, word in enumerate(words, 1):
        assert said(agent, session, number, word).json()["taken"]
    agent("POST", f"/agent/sessions/{session.pk}/end", {"exit_code": 0})
    return session


def test_what_redis_has_no_room_for_isnt_taken(
    world: World, cell: Cell, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a dump would have a hole, and end well."""
    session, agent = running(world, cell)

    def full(*_: Any, **__: Any) -> None:
        raise redis.exceptions.OutOfMemoryError("command not allowed when used memory > 'maxmemory'.")

    monkeypatch.setattr(redis.Redis, "xadd", full)
    assert said(agent, session, 1, "x").status_code == 503
    typed = world.api("developer").post(f"{CELL}/sessions/{session.pk}/input", {"number": 1})
    assert typed.status_code == 503


def test_its_agent_is_there_as_soon_as_it_runs(
    world: World, cell: Cell, monkeypatch: pytest.MonkeyPatch
) -> None:
    session, agent, take = begun(world, cell), world.agent(), relay.take
    lively = []

    def between(client: redis.Redis, number: int) -> Any:
        row = Session.objects.get(pk=number)
        lively.append((row.state, actions.look(row, relay.CLIENT)))
        return take(client, number)

    monkeypatch.setattr(relay, "take", between)
    assert agent("POST", f"/agent/sessions/{session.pk}/claim", {}).status_code == 200
    assert lively == [("running", True)]


@committed
def test_what_was_printed_before_the_end_comes_first(
    world: World, cell: Cell, monkeypatch: pytest.MonkeyPatch
) -> None:
    session, agent = running(world, cell)
    pull = relay.pull

    async def just_before(*arguments: Any) -> relay.Pieces:
        found = await pull(*arguments)
        relay.push(relay.connection(), session.pk, relay.OUTPUT, 1, {"stream": "out", "data": text("last")})
        await polling.query(lambda: actions.finish(session.pk, exit_code=0))
        return found

    monkeypatch.setattr(relay, "pull", just_before)
    assert asked(world, session)["ended"] is None
    monkeypatch.setattr(relay, "pull", pull)
    answer = asked(world, session)
    assert (answer["pieces"], answer["ended"]) == ([{"stream": "out", "data": text("last")}], None)
    assert asked(world, session, after=1)["ended"]["exit_code"] == 0
    # A question whose answer was lost is asked again.
    assert asked(world, session, after=1)["ended"]["exit_code"] == 0


@committed
def test_what_a_slow_reader_hasnt_read_is_kept(world: World, cell: Cell) -> None:
    session, client = ended(world, cell, "one"), relay.connection()
    key = f"cytoplane:session:{session.pk}:out"
    client.expire(key, 5)
    assert asked(world, session, hold="true")["ended"] is None
    assert client.ttl(key) > 100
    # Not for ever.
    Session.objects.update(ended_at=timezone.now() - timedelta(hours=1))
    client.expire(key, 5)
    asked(world, session, hold="true")
    assert client.ttl(key) <= 5


@committed
def test_output_that_is_lost_isnt_taken_for_all(world: World, cell: Cell) -> None:
    session = ended(world, cell, "one")
    relay.connection().flushall()
    Session.objects.update(ended_at=timezone.now() - timedelta(minutes=1))
    told = asked(world, session)["ended"]
    assert told["exit_code"] is None
    assert "lost" in told["reason"]
    assert Session.objects.get().exit_code == 0


@committed
def test_a_moment_without_redis_ends_nothing_early(
    world: World, cell: Cell, monkeypatch: pytest.MonkeyPatch
) -> None:
    session, pull = ended(world, cell, "one"), relay.pull

    async def away(*_: Any) -> relay.Pieces:
        raise redis.TimeoutError

    monkeypatch.setattr(relay, "pull", away)
    assert asked(world, session)["ended"] is None
    monkeypatch.setattr(relay, "pull", pull)
    assert len(asked(world, session)["pieces"]) == 1


def test_what_was_typed_goes_with_the_end(world: World, cell: Cell) -> None:
    session, client = begun(world, cell), relay.connection()
    for number in range(1, 5):
        assert relay.push(client, session.pk, relay.INPUT, number, {"data": text("x")})
    actions.finish(session.pk)
    assert client.xlen(f"cytoplane:session:{session.pk}:in") == 1
    assert relay.push(client, session.pk, relay.INPUT, 5, {"data": text("x")})
    assert client.xlen(f"cytoplane:session:{session.pk}:in") == 1


def test_what_nobody_reads_counts_against_the_tenant(
    world: World, cell: Cell, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else sessions that end at once would fill Redis, which carries everybody's work."""
    monkeypatch.setattr(actions, "MOST_OF_TENANT", 2)
    sessions = [ended(world, cell, "one"), ended(world, cell, "two")]
    with pytest.raises(CytoplaneError, match="acme has 2 sessions open, or ended with output"):
        begun(world, cell)
    last = asked(world, sessions[0])["last"]
    asked(world, sessions[0], after=last)
    begun(world, cell)
    with pytest.raises(CytoplaneError, match="acme has 2 sessions open"):
        begun(world, cell)


def test_a_plane_has_a_bounded_number_of_them(
    world: World, cell: Cell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(actions, "MOST_OF_PLANE", 1)
    begun(world, cell)
    with pytest.raises(CytoplaneError, match="The data plane has 1 sessions open"):
        begun(world, cell)
