"""Whether a plane is there: since when nothing was heard of it.

A plane is as present as what drives it: the machine's agent, a cluster's controller. A cluster that
workers drive is present by its agents.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

from django.utils import timezone

from dataplane.planes.models import Node, Plane

#: A node that wasn't heard of for this long is offline; they report every few seconds.
SILENCE = timedelta(seconds=45)


def silent(node: Node, now: datetime | None = None) -> bool:
    """Whether a node is offline."""
    return node.last_seen_at is None or (now or timezone.now()) - node.last_seen_at > SILENCE


def offline_since(plane: Plane, nodes: Iterable[Node] | None = None) -> datetime | None:
    """Since when nothing was heard of the plane; None if it is there, or workers drive it.

    A plane that nobody has joined yet is offline since it was made.
    """
    if plane.direct:
        return None
    found = [n for n in (plane.nodes.all() if nodes is None else nodes) if n.kind == plane.joins_as]
    if any(not silent(node) for node in found):
        return None
    return max((n.last_seen_at for n in found if n.last_seen_at), default=plane.created_at)


def gone_since(plane: Plane) -> datetime | None:
    """Since when a plane is away that was there; None if it is there, or was never heard of."""
    found = [node for node in plane.nodes.filter(kind=plane.joins_as) if node.last_seen_at is not None]
    if plane.direct or not found or any(not silent(node) for node in found):
        return None
    return max(node.last_seen_at for node in found if node.last_seen_at)


def heard_at(plane: Plane) -> datetime:
    """When a plane that dials in was heard of last; when it was made, if it never was."""
    found = [node.last_seen_at for node in plane.nodes.filter(kind=plane.joins_as) if node.last_seen_at]
    return max(found, default=plane.created_at)
