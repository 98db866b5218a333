"""The admin console: tenants, planes and nodes, and why one of them isn't healthy."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from django.db.models import Count, Q

from dataplane.planes import presence
from dataplane.planes.models import Certificate, Node, Plane
from delivery.models import Replica
from projects.models import Environment
from tenants.models import Tenant
from tenants.queries import all_tenants


def node_state(node: Node, plane: Plane | None) -> str:
    """A key of the looks of kind ``node``."""
    if presence.silent(node):
        return "offline"
    if problems(node):
        return "unhealthy"
    if plane is not None and node.kind == Node.Kind.AGENT and node.acknowledged < plane.generation:
        return "behind"
    return "healthy"


def problems(node: Node) -> list[str]:
    """Why a node is unhealthy, in its own words; they are untrusted, so they stay text."""
    health = node.health if isinstance(node.health, dict) else {}
    said = health.get("problems") or []
    raw = said if isinstance(said, list) else [said]
    found = [str(p.get("message", p) if isinstance(p, dict) else p)[:300] for p in raw][:20]
    if not found and health.get("health") not in (None, "", "ok", "healthy", True):
        found = [f"It reports itself as {str(health.get('health'))[:60]}."]
    return found


@dataclass
class NodeRow:
    node: Node
    state: str
    problems: list[str]
    certificate: Certificate | None = None

    @property
    def versions(self) -> list[tuple[str, str]]:
        """Name and version of what runs on the node."""
        health = self.node.health if isinstance(self.node.health, dict) else {}
        facts = self.node.facts if isinstance(self.node.facts, dict) else {}
        told = health.get("facts")
        told = told if isinstance(told, dict) else {}
        said = health.get("versions") or told.get("versions") or facts.get("versions")
        versions = said if isinstance(said, dict) else {}
        found = [(str(k)[:40], str(v)[:80]) for k, v in versions.items()]
        for key in ("kernel", "podman", "os"):
            if key in facts and key not in versions:
                found.append((key, str(facts[key])[:80]))
        return sorted(found)

    @property
    def counters(self) -> list[tuple[str, str]]:
        """Kernel counters that are not zero: each is something that failed or was lost."""
        health = self.node.health if isinstance(self.node.health, dict) else {}
        raw = health.get("counters") or {}
        if not isinstance(raw, dict):
            return []
        return sorted((str(k)[:60], str(v)[:40]) for k, v in raw.items() if v)


@dataclass
class PlaneRow:
    plane: Plane
    state: str
    nodes: list[NodeRow] = field(default_factory=list)
    replicas: int = 0
    healthy: int = 0
    tenants: int = 0
    offline_since: datetime | None = None

    @property
    def why(self) -> str:
        """One sentence for a plane that isn't healthy."""
        if self.state == "none":
            return "Nothing has joined it yet: make a command and run it within the hour."
        if self.offline_since is not None:
            return (
                "It isn't heard of. What runs there goes on and is enforced; it catches up when it is back."
            )
        for row in self.nodes:
            if row.state == "offline":
                return f"{row.node.name} isn't heard of; what runs there goes on."
            if row.problems:
                return f"{row.node.name}: {row.problems[0]}"
            if row.state == "behind":
                missing = self.plane.generation - row.node.acknowledged
                return f"{row.node.name} has {missing} generation{'s' if missing != 1 else ''} to apply."
        return ""


def _certificates() -> dict[int, Certificate]:
    """The certificate of each node that ends last, by node."""
    rows = Certificate.objects.filter(revoked_at=None).order_by("expires_at")
    return {certificate.node_id: certificate for certificate in rows}


def planes(owner: Tenant | None = None) -> list[PlaneRow]:
    """Every plane with its nodes, or those of a tenant's own; a constant number of queries."""
    certificates = _certificates()
    replicas = {
        row["plane"]: row
        for row in Replica.objects.exclude(wanted__in=[Replica.Wanted.STOP, Replica.Wanted.ONCE])
        .values("plane")
        .annotate(total=Count("id"), good=Count("id", filter=Q(phase=Replica.Phase.HEALTHY)))
    }
    tenants = dict(
        Environment.objects.exclude(plane=None)
        .values_list("plane")
        .annotate(total=Count("tenant", distinct=True))
    )
    rows = []
    wanted = Plane.objects.select_related("owner").prefetch_related("nodes").order_by("name")
    for plane in wanted if owner is None else wanted.filter(owner=owner):
        nodes = [
            NodeRow(n, node_state(n, plane), problems(n), certificates.get(n.pk))
            for n in sorted(plane.nodes.all(), key=lambda n: n.name)
        ]
        counts = replicas.get(plane.pk, {})
        away = presence.offline_since(plane, list(plane.nodes.all()))
        rows.append(
            PlaneRow(
                plane=plane,
                state=_state(nodes, away),
                nodes=nodes,
                offline_since=away,
                replicas=counts.get("total", 0),
                healthy=counts.get("good", 0),
                tenants=tenants.get(plane.pk, 0),
            )
        )
    return rows


def _state(nodes: list[NodeRow], away: datetime | None) -> str:
    """Of the plane: one silent node of several doesn't make it offline."""
    if not nodes:
        return "none"
    if away is not None:
        return "offline"
    states = {"unhealthy" if row.state == "offline" else row.state for row in nodes}
    return next(state for state in ("unhealthy", "behind", "healthy") if state in states)


def builders() -> list[NodeRow]:
    """Builders, which belong to no plane."""
    found = Node.objects.filter(kind=Node.Kind.BUILDER).order_by("name")
    certificates = _certificates()
    return [NodeRow(n, node_state(n, None), problems(n), certificates.get(n.pk)) for n in found]


def tenants(search: str, state: str):
    """Tenants that match, with counts: a queryset by name."""
    found = all_tenants()
    if search:
        found = found.filter(Q(slug__icontains=search) | Q(name__icontains=search))
    return found.filter(state=state) if state in Tenant.State.values else found
