"""What agents ask of sessions. An agent sees those of replicas on its own node, and of these what it took."""

from __future__ import annotations

import base64
import binascii
from typing import Any

import redis
from django.http import HttpRequest, JsonResponse
from django.views.decorators.http import require_GET, require_POST

from controlplane.errors import CytoplaneError
from dataplane.planes import polling
from dataplane.planes.agent_views import LONGEST_WAIT, body
from dataplane.planes.identity import node_of, node_view
from dataplane.planes.models import Node
from execution import actions, queries, relay
from execution.models import Session

#: Seconds that a question for input may wait: less than the silence after which a side counts as gone.
_INPUT_WAIT = 5.0
#: Seconds after which waiting sessions are looked for without having been woken.
_UNWOKEN = 5.0


def _number(request: HttpRequest, name: str, most: float) -> float:
    try:
        return min(most, max(0.0, float(request.GET.get(name, "0"))))
    except ValueError:
        raise CytoplaneError("invalid", field=name, message=f"`{name}` is a number.") from None


@require_GET
async def offered(request: HttpRequest) -> JsonResponse:
    """Sessions that wait for this agent. ``fresh``: it has just started and holds none."""
    node = await polling.query(lambda: node_of(request, kind=Node.Kind.AGENT))
    wait = _number(request, "wait", LONGEST_WAIT)
    if request.GET.get("fresh"):
        await polling.query(actions.restarted, node)

    def look() -> list[int] | None:
        return queries.offered(node_of(request, kind=Node.Kind.AGENT)) or None

    with polling.seat(node.pk, node.name):
        found = await polling.answer(relay.channel(node.plane_id), wait, look, unwoken=_UNWOKEN)
    return JsonResponse({"sessions": found or []})


@require_POST
@node_view(kind=Node.Kind.AGENT)
def claim(request: HttpRequest, node: Node, number: int) -> JsonResponse:
    """Take a session: the command is told once, to this agent alone."""
    try:
        found = actions.claim(node, number)
    except redis.RedisError:
        actions.finish(number, reason="The platform's Redis, which carries what is said, doesn't answer.")
        found = None
    if found is None:
        raise CytoplaneError("not-found", kind="session")
    session, kept = found
    return JsonResponse(
        {
            "id": session.pk,
            "replica": f"r{session.replica}",
            "command": kept["command"],
            "size": kept["size"],
            "tty": session.tty,
            "seconds": actions.TOTAL_LIMIT.total_seconds(),
        }
    )


@require_GET
async def read(request: HttpRequest, number: int) -> JsonResponse:
    """What was typed behind ``after``, as soon as there is something; ``over`` once the process must end."""

    def session() -> tuple[Session, bool]:
        row = queries.taken(node_of(request, kind=Node.Kind.AGENT), number)
        return row, actions.look(row, relay.AGENT)

    row, lively = await polling.query(session)
    after = int(_number(request, "after", 2**40))
    found = relay.Pieces(after, [])
    # Who has no room yet for what was typed only shows that it is there.
    if lively and request.GET.get("hold") != "1":
        try:
            found = await relay.pull(row.pk, relay.INPUT, after, _number(request, "wait", _INPUT_WAIT))
        except redis.RedisError:
            # The next question finds out whether it has come back, and ends the session if it hasn't.
            pass
        row, _ = await polling.query(session)
    over = row.state == Session.State.ENDED
    return JsonResponse({"last": found.last, "pieces": found.pieces, "over": over})


@require_POST
@node_view(kind=Node.Kind.AGENT)
def write(request: HttpRequest, node: Node, number: int) -> JsonResponse:
    """What the process printed. ``taken`` false: the person hasn't read what was there before."""
    row = queries.taken(node, number)
    document = body(request)
    piece, position = _piece(document), document.get("number")
    if type(position) is not int or not 1 <= position < 2**40:
        raise CytoplaneError("invalid", field="number", message="`number` is a positive number.")
    if row.state == Session.State.ENDED:
        return JsonResponse({"taken": True, "over": True})
    try:
        taken = relay.push(relay.connection(), row.pk, relay.OUTPUT, position, piece)
    except redis.RedisError:
        raise CytoplaneError("unavailable", part="redis") from None
    return JsonResponse({"taken": taken, "over": False})


def _piece(document: dict[str, Any]) -> dict[str, Any]:
    """A piece of output as it may be passed on."""
    data, stream = document.get("data"), document.get("stream")
    if stream not in ("out", "err") or not isinstance(data, str):
        raise CytoplaneError("invalid", field="data", message="Output has a `stream` and `data` in base64.")
    try:
        size = len(base64.b64decode(data, validate=True))
    except (binascii.Error, ValueError):
        raise CytoplaneError("invalid", field="data", message="`data` isn't base64.") from None
    if size > relay.LARGEST_PIECE:
        raise CytoplaneError("too-large", limit=f"{relay.LARGEST_PIECE // 1024} KiB")
    return {"stream": stream, "data": data}


@require_POST
@node_view(kind=Node.Kind.AGENT)
def end(request: HttpRequest, node: Node, number: int) -> JsonResponse:
    """The process has ended, or couldn't be started."""
    row = queries.taken(node, number)
    document = body(request)
    code, reason = document.get("exit_code"), document.get("reason")
    actions.finish(
        row.pk,
        exit_code=code if type(code) is int and -(2**31) <= code < 2**31 else None,
        reason=reason if isinstance(reason, str) else "",
    )
    return JsonResponse({})
