"""Sessions from the request to the end. Each end is written once, with its reason, whoever saw it first."""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import Any

import redis
from django.db import connection, transaction
from django.utils import timezone

from controlplane.errors import CytoplaneError, not_found
from dataplane.planes.models import Node, Plane
from delivery.models import Replica
from delivery.replicas import ACTIVE
from execution import relay
from execution.models import Session
from projects.models import Cell
from tenants import audit
from tenants.policy import Actor, authorise

log = logging.getLogger("cytoplane.execution")
State = Session.State
#: Open sessions at once. A tenant's count for as long as Redis holds what they printed.
MOST_OF_CELL, MOST_OF_PERSON, MOST_OF_TENANT, MOST_OF_PLANE = 10, 5, 20, 50
#: Of advisory locks.
_LOCK_CLASS = 7340
#: Between a session's end in its row and in what was printed.
_MOMENT = timedelta(seconds=5)
MOST_WORDS, LONGEST_COMMAND = 256, 16 * 1024
WAITING_LIMIT = timedelta(seconds=20)
IDLE_LIMIT = timedelta(minutes=15)
TOTAL_LIMIT = timedelta(hours=4)
#: Records of ended sessions are kept so long; the audit log has their begins and ends for good.
KEPT = timedelta(days=30)
_RUNS = (Replica.Phase.HEALTHY, Replica.Phase.UNHEALTHY, Replica.Phase.STARTING)


def open_session(
    *,
    acting_user: Actor,
    cell: Cell,
    component: str,
    command: list[str],
    replica: int | None = None,
    tty: bool = False,
    size: tuple[int, int] = (24, 80),
) -> Session:
    """Ask for a command in a replica: the one with this number, else the first that is well."""
    tenant = cell.project.tenant
    authorise(acting_user, "run commands", tenant)
    _check(command, size)
    row = _replica(cell, component, replica)
    with transaction.atomic():
        # Whoever opens two at once is counted one after the other.
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(%s, %s)", [_LOCK_CLASS, row.plane_id])
        _count(acting_user, cell, row.plane)
        session = Session.objects.create(
            cell=cell,
            plane_id=row.plane_id,
            replica=row.pk,
            component=component,
            number=row.number,
            node_name=_node_of(row),
            user=acting_user.user,
            created_by=acting_user.name,
            tty=tty,
            program=command[0][:80],
            words=len(command),
        )
        changes = {"program": session.program, "words": session.words, "replica": row.number, "tty": tty}
        audit.record(
            acting_user, "session.begin", session, tenant=tenant, name=f"{cell} {session}", changes=changes
        )
        # Before the row is: a session without its command would be taken for one that Redis has forgotten.
        try:
            relay.begin(relay.connection(), session.pk, command, size)
        except redis.RedisError:
            raise CytoplaneError("unavailable", part="redis") from None
        transaction.on_commit(lambda: _announce(session), robust=True)
    return session


def _check(command: list[str], size: tuple[int, int]) -> None:
    if not command or not command[0]:
        raise CytoplaneError("invalid", field="command", message="There is no command to run.")
    too_long = len(command) > MOST_WORDS or sum(len(word.encode()) for word in command) > LONGEST_COMMAND
    if too_long or any("\0" in word for word in command):
        limit = f"at most {MOST_WORDS} words and {LONGEST_COMMAND // 1024} KiB, without zero bytes"
        raise CytoplaneError("invalid", field="command", message=f"A command has {limit}.")
    if not all(1 <= side <= 1000 for side in size):
        raise CytoplaneError("invalid", field="rows", message="A terminal has 1 to 1000 rows and columns.")


def _replica(cell: Cell, component: str, number: int | None) -> Replica:
    """The replica that is meant, if it runs."""
    rows = Replica.objects.filter(workload__cell=cell, workload__component__name=component)
    if not cell.project.components.filter(name=component).exists():
        raise not_found("component")
    found = [row for row in rows.filter(wanted__in=ACTIVE) if number in (None, row.number)]
    if not found and number is not None:
        raise not_found("replica")
    running = [row for row in found if row.phase in _RUNS]
    if not running:
        which = component if number is None else f"{component}.{number}"
        raise CytoplaneError("conflict", message=f"No replica of {which} runs.")
    running.sort(
        key=lambda row: (row.phase != Replica.Phase.HEALTHY, row.wanted != Replica.Wanted.SERVE, row.number)
    )
    return running[0]


def _node_of(row: Replica) -> str:
    if row.plane.engine != Plane.Engine.KUBERNETES:
        return ""
    name = row.detail.get("node", "")
    if not name:
        raise CytoplaneError("conflict", message="The cluster hasn't said yet on which node the replica is.")
    return name


def _count(actor: Actor, cell: Cell, plane: Plane) -> None:
    live, tenant = Session.objects.exclude(state=State.ENDED), cell.project.tenant
    lately = Session.objects.filter(state=State.ENDED, cell__project__tenant=tenant)
    lately = lately.filter(ended_at__gte=timezone.now() - IDLE_LIMIT - timedelta(seconds=relay.KEPT_SECONDS))
    try:
        unread = relay.unread(relay.connection(), list(lately.values_list("pk", flat=True)))
    except redis.RedisError:
        raise CytoplaneError("unavailable", part="redis") from None
    for rows, more, most, whose in (
        (live.filter(cell=cell), 0, MOST_OF_CELL, f"{cell} has"),
        (live.filter(user=actor.user), 0, MOST_OF_PERSON, "You have"),
        (live.filter(cell__project__tenant=tenant), unread, MOST_OF_TENANT, f"{tenant} has"),
        (live.filter(plane=plane), 0, MOST_OF_PLANE, "The data plane has"),
    ):
        if rows.count() + more >= most:
            beside = ", or ended with output that is still to be read" if more else ""
            message = f"{whose} {most} sessions open{beside}, which is the limit."
            raise CytoplaneError("conflict", message=message)


def _announce(session: Session) -> None:
    relay.announce(relay.connection(), session.plane_id, session.pk)


def claim(node: Node, session_id: int) -> tuple[Session, dict[str, Any]] | None:
    """Give a waiting session to the agent of its replica's node; None if it isn't there for it (any more)."""
    with transaction.atomic():
        rows = Session.objects.select_for_update().filter(
            pk=session_id, plane=node.plane_id, node_name__in=("", node.name), state=State.WAITING
        )
        session = rows.first()
        if session is None:
            return None
        # Before it counts as running: who asks in this moment would take its agent for gone.
        relay.present(relay.connection(), session.pk, relay.AGENT)
        session.state, session.node, session.started_at = State.RUNNING, node, timezone.now()
        session.save(update_fields=["state", "node", "started_at"])
    kept = relay.take(relay.connection(), session.pk)
    if kept is None:
        finish(session.pk, reason="Redis lost what was to be run.")
        return None
    return session, kept


def finish(session_id: int, *, exit_code: int | None = None, reason: str = "") -> bool:
    """End a session; False if it has ended before."""
    with transaction.atomic():
        session = Session.objects.select_for_update().filter(pk=session_id).exclude(state=State.ENDED).first()
        if session is None:
            return False
        session.state, session.ended_at = State.ENDED, timezone.now()
        session.exit_code, session.reason = exit_code, reason[:300].replace("\0", "")
        session.save(update_fields=["state", "ended_at", "exit_code", "reason"])
        cell = session.cell
        audit.record(
            session.created_by,
            "session.end",
            session,
            tenant=cell.project.tenant,
            name=f"{cell} {session}",
            changes={"exit_code": exit_code, "reason": session.reason}
            | {"seconds": int((session.ended_at - session.created_at).total_seconds())},
        )
    try:
        relay.end(relay.connection(), session.pk)
    except redis.RedisError:
        log.warning("session %s ended; who waits for it learns that a moment later", session.pk)
    return True


def stop(*, acting_user: Actor, session: Session) -> Session:
    """The person who opened it ends it, or a colleague who may run commands too."""
    authorise(acting_user, "run commands", session.cell.project.tenant)
    finish(
        session.pk,
        reason="It was ended by the person who opened it."
        if session.user == acting_user.user
        else f"It was ended by {acting_user.user.email}.",
    )
    session.refresh_from_db()
    return session


def look(session: Session, who: str) -> bool:
    """Note that one side is there and end the session if it has to; whether it is still open."""
    if session.state == State.ENDED:
        return False
    try:
        reason = _over(session, who, relay.connection())
    except redis.RedisError:
        reason = "The platform's Redis, which carries what is said, doesn't answer."
    if reason:
        finish(session.pk, reason=reason)
    return not reason


def _over(session: Session, who: str, client: redis.Redis) -> str:
    """Why a session that is open mustn't be any more; "" if it may."""
    now = timezone.now()
    still = relay.still_for(client, session.pk)
    if still is None:
        return "The platform's Redis was started anew and has lost what was said."
    relay.present(client, session.pk, who)
    if session.state == State.WAITING:
        if now - session.created_at > WAITING_LIMIT:
            return "The agent of its node didn't take it: is the node offline?"
        return ""
    if now - session.created_at > TOTAL_LIMIT:
        return f"It was open for {TOTAL_LIMIT // timedelta(hours=1)} hours, which is the limit."
    if still > IDLE_LIMIT.total_seconds():
        return f"Nothing was said for {IDLE_LIMIT // timedelta(minutes=1)} minutes."
    if who == relay.AGENT and relay.gone(client, session.pk, relay.CLIENT):
        return "The person's side is gone."
    if who == relay.CLIENT and relay.gone(client, session.pk, relay.AGENT):
        return "The agent of its node is gone."
    return ""


def keep(session: Session) -> bool:
    """Keep what an ended session printed while its reader still comes for it; False if it is lost."""
    assert session.ended_at is not None
    age = timezone.now() - session.ended_at
    try:
        there = relay.keep(relay.connection(), session.pk, longer=age < IDLE_LIMIT)
    except redis.RedisError:
        return False
    # Its row is written a moment before the end is in the stream.
    return there or age < _MOMENT


def restarted(node: Node) -> int:
    """A node's agent began anew: what the one before had is over. How many those were."""
    rows = Session.objects.filter(node=node, state=State.RUNNING).values_list("pk", flat=True)
    return sum(finish(pk, reason="The agent of its node was started anew.") for pk in list(rows))


def sweep() -> int:
    """End what neither side asks about any more, and forget old records; how many ended."""
    ended = 0
    silent = timedelta(seconds=relay.SILENCE_SECONDS)
    for session in Session.objects.exclude(state=State.ENDED):
        try:
            client = relay.connection()
            there = not (
                relay.gone(client, session.pk, relay.CLIENT) and relay.gone(client, session.pk, relay.AGENT)
            )
        except redis.RedisError:
            there = False
        if not there and timezone.now() - session.created_at > silent:
            ended += finish(session.pk, reason="Both sides are gone.")
    Session.objects.filter(state=State.ENDED, ended_at__lt=timezone.now() - KEPT).delete()
    return ended
