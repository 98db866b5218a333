"""Reads of sessions for API and agents."""

from __future__ import annotations

from django.db.models import QuerySet

from controlplane.errors import not_found
from dataplane.planes.models import Node
from execution.models import Session
from projects.models import Cell
from tenants.policy import Actor


def sessions(cell: Cell) -> QuerySet[Session]:
    return cell.sessions.order_by("-id")


def get_session(cell: Cell, number: int) -> Session:
    """A session of this cell."""
    found = cell.sessions.filter(pk=number).first()
    if found is None:
        raise not_found("session")
    found.cell = cell
    return found


def own_session(actor: Actor, cell: Cell, number: int) -> Session:
    """A session of the actor's own: nobody else reads along or types into it, whatever their role."""
    found = get_session(cell, number)
    if found.user_id != actor.user.pk:
        raise not_found("session")
    return found


def offered(node: Node) -> list[int]:
    """Sessions that wait for this node's agent."""
    rows = Session.objects.filter(plane=node.plane_id, state=Session.State.WAITING)
    return list(rows.filter(node_name__in=("", node.name)).order_by("pk").values_list("pk", flat=True)[:20])


def taken(node: Node, number: int) -> Session:
    """A session that this node's agent has taken."""
    found = Session.objects.filter(pk=number, node=node, plane=node.plane_id).first()
    if found is None:
        raise not_found("session")
    return found
