"""The node's edge for the admin console: who is denied, what the nodes refused and whom."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from dataplane.planes.models import Node

#: Of those that a node names; more than that it isn't asked for.
MOST_OFFENDERS = 10


@dataclass
class Offender:
    address: str
    reason: str
    packets: int


@dataclass
class EdgeRow:
    """What a node says of its edge; untrusted, so numbers are made of numbers and text stays text."""

    node: str
    plane: str
    interface: str
    guarded: bool
    denied: int = 0
    limited: int = 0
    offenders: list[Offender] = field(default_factory=list)


def _count(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else 0


def _part(said: Any, name: str, kind: type) -> Any:
    """A part of what was said if it has its kind, else an empty one."""
    found = said.get(name) if isinstance(said, dict) else None
    return found if isinstance(found, kind) else kind()


def _row(node: Node) -> EdgeRow:
    said = _part(node.health, "edge", dict)
    counters, raw = _part(said, "counters", dict), _part(said, "offenders", list)
    offenders = [
        Offender(str(o.get("address"))[:45], str(o.get("reason"))[:40], _count(o.get("packets")))
        for o in raw[:MOST_OFFENDERS]
        if isinstance(o, dict)
    ]
    return EdgeRow(
        node=node.name,
        plane=node.plane.name if node.plane else "",
        interface=str(said.get("interface") or "")[:40],
        guarded=said.get("guarded") is True,
        denied=_count(counters.get("denied")),
        limited=_count(counters.get("limited")),
        offenders=offenders,
    )


def edges() -> list[EdgeRow]:
    """Every agent's edge, guarded or not."""
    nodes = Node.objects.filter(kind=Node.Kind.AGENT).select_related("plane").order_by("plane__name", "name")
    return [_row(node) for node in nodes]
