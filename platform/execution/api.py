"""REST API of sessions: commands in replicas, what is typed into them and what they print."""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Annotated, Any, Literal

import redis
from django.http import HttpRequest, StreamingHttpResponse
from ninja import Query, Router, Schema
from pydantic import Field

from api.paging import page
from controlplane.errors import CytoplaneError
from dataplane.planes import polling
from execution import actions, queries, relay
from execution.models import Session
from projects.queries import get_cell
from tenants.api import actor_of
from tenants.policy import authorise

router = Router()
_CELL = "/tenants/{tenant}/projects/{project}/environments/{environment}"
_ONE = f"{_CELL}/sessions/{{number}}"
_LOST = "What it printed last is lost: nobody came for it in time, or Redis was started anew."
#: Seconds that a question for output may wait: less than the silence after which a side counts as gone.
_LONGEST_WAIT = 5.0


class Command(Schema):
    component: str
    #: Program and arguments, as they are: no shell reads them.
    command: list[str]
    #: Number of the replica; without it the first that is well.
    replica: int | None = None
    tty: bool = False
    rows: int = 24
    columns: int = 80


class Input(Schema):
    #: 1, 2, 3…: a piece that is sent again counts once.
    number: Annotated[int, Field(ge=1, lt=2**40)]
    #: Base64.
    data: Annotated[str, Field(max_length=relay.LARGEST_PIECE * 4 // 3 + 4)] = ""
    #: Nothing more will be typed.
    end: bool = False
    #: Rows and columns of the terminal.
    size: tuple[Annotated[int, Field(ge=1, le=1000)], Annotated[int, Field(ge=1, le=1000)]] | None = None
    signal: Literal["INT", "TERM", "HUP", "QUIT", "KILL", "USR1", "USR2"] | None = None


def session_out(row: Session) -> dict[str, Any]:
    return {
        "id": row.pk,
        "component": row.component,
        "replica": row.number,
        "program": row.program,
        "words": row.words,
        "tty": row.tty,
        "state": row.state,
        "created_by": row.created_by,
        "created_at": row.created_at,
        "started_at": row.started_at,
        "ended_at": row.ended_at,
        "exit_code": row.exit_code,
        "reason": row.reason or None,
    }


@router.post(f"{_CELL}/sessions", operation_id="open_session", summary="Run a command in a running replica")
def open_session(
    request: HttpRequest, tenant: str, project: str, environment: str, body: Command
) -> dict[str, Any]:
    cell = get_cell(actor_of(request), tenant, project, environment)
    row = actions.open_session(
        acting_user=actor_of(request),
        cell=cell,
        component=body.component,
        command=body.command,
        replica=body.replica,
        tty=body.tty,
        size=(body.rows, body.columns),
    )
    return session_out(row)


@router.get(f"{_CELL}/sessions", operation_id="list_sessions", summary="Who ran commands, newest first")
def list_sessions(
    request: HttpRequest,
    tenant: str,
    project: str,
    environment: str,
    before: int | None = None,
    limit: int = 50,
) -> list[dict[str, Any]]:
    cell = get_cell(actor_of(request), tenant, project, environment)
    return [session_out(row) for row in page(queries.sessions(cell), before, limit)]


@router.get(_ONE, operation_id="get_session", summary="A session and how it ended")
def read_session(
    request: HttpRequest, tenant: str, project: str, environment: str, number: int
) -> dict[str, Any]:
    cell = get_cell(actor_of(request), tenant, project, environment)
    return session_out(queries.get_session(cell, number))


def _own(request: HttpRequest, tenant: str, project: str, environment: str, number: int) -> Session:
    """The caller's session, if they may still run commands: a role that was taken away ends at once."""
    actor = actor_of(request)
    cell = get_cell(actor, tenant, project, environment)
    authorise(actor, "run commands", cell.project.tenant)
    return queries.own_session(actor, cell, number)


@router.post(f"{_ONE}/input", operation_id="session_input", summary="What is typed; only for who opened it")
def session_input(
    request: HttpRequest, tenant: str, project: str, environment: str, number: int, body: Input
) -> dict[str, Any]:
    row = _own(request, tenant, project, environment, number)
    try:
        size = len(base64.b64decode(body.data, validate=True))
    except binascii.Error:
        raise CytoplaneError("invalid", field="data", message="`data` isn't base64.") from None
    if size > relay.LARGEST_PIECE:
        raise CytoplaneError("too-large", limit=f"{relay.LARGEST_PIECE // 1024} KiB")
    if row.state == Session.State.ENDED:
        return {"taken": True}
    piece = body.dict(exclude={"number"}, exclude_defaults=True)
    try:
        return {"taken": relay.push(relay.connection(), row.pk, relay.INPUT, body.number, piece)}
    except redis.RedisError:
        raise CytoplaneError("unavailable", part="redis") from None


@router.get(
    f"{_ONE}/output",
    operation_id="session_output",
    summary="What it prints behind `after`, as soon as there is something; only for who opened it",
)
def session_output(
    request: HttpRequest,
    tenant: str,
    project: str,
    environment: str,
    number: int,
    after: Annotated[int, Query(ge=0, lt=2**40)] = 0,
    wait: float = 0,
    hold: bool = False,
) -> StreamingHttpResponse:
    row = _own(request, tenant, project, environment, number)
    seconds = min(_LONGEST_WAIT, wait) if wait > 0 else 0.0
    return StreamingHttpResponse(_output(row, after, seconds, hold), content_type="application/json")


async def _output(row: Session, after: int, seconds: float, hold: bool) -> AsyncIterator[bytes]:
    """One document. It holds no connection of the database while it waits.

    ``hold``: the person's side has no room yet for what was printed, and only shows that it is there.
    """
    lively = await polling.query(actions.look, row, relay.CLIENT)
    found, all_read = relay.Pieces(after, []), False
    if not hold:
        try:
            found = await relay.pull(row.pk, relay.OUTPUT, after, seconds if lively else 0.0)
            # What was running may have printed more and ended since; what had ended hasn't.
            all_read = not found.pieces and (found.over or not lively)
        except redis.RedisError:
            pass
        except asyncio.CancelledError:
            # Nobody is at the other end of this request any more.
            with contextlib.suppress(redis.RedisError):
                await asyncio.shield(relay.leaving(row.pk, relay.CLIENT))
            raise
    now = await polling.query(Session.objects.filter(pk=row.pk).first)
    ended = None
    if now is None:
        row.state, row.reason = Session.State.ENDED, "What it ran in was destroyed."
        ended = session_out(row)
    elif now.state == Session.State.ENDED:
        # What was printed before the end comes first, however many questions that takes.
        kept = await polling.query(actions.keep, now)
        if all_read or not (kept or found.pieces or hold):
            ended = session_out(now)
            if not kept and now.exit_code is not None:
                ended |= {"exit_code": None, "reason": _LOST}
    document = {"last": found.last, "pieces": found.pieces, "ended": ended}
    yield json.dumps(document, default=lambda moment: moment.isoformat()).encode()


@router.post(f"{_ONE}/end", operation_id="end_session", summary="End it: what runs is killed")
def end_session(
    request: HttpRequest, tenant: str, project: str, environment: str, number: int
) -> dict[str, Any]:
    cell = get_cell(actor_of(request), tenant, project, environment)
    row = queries.get_session(cell, number)
    return session_out(actions.stop(acting_user=actor_of(request), session=row))
