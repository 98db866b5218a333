"""The admin console: tenants, planes and nodes, and why one of them isn't healthy."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta

from django.db.models import Count, Q
from django.utils import timezone

from dataplane.planes.models import Certificate, Node, Plane
from delivery.models import Replica
from projects.models import Environment
from tenants.models import Tenant
from tenants.queries import all_tenants

#: A node that hasn't been heard of for this long is offline; agents report every few seconds.
SILENCE = timedelta(seconds=45)


def node_state(node: Node, plane: Plane | None) -> str:
    """A key of the looks of kind ``node``."""
    if node.last_seen_at is None or timezone.now() - node.last_seen_at > SILENCE:
        return "offline"
    if problems(node):
        return "unhealthy"
    if plane is not None and node.kind == Node.Kind.AGENT and node.acknowledged < plane.generation:
        return "behind"
    return "healthy"


def problems(node: Node) -> list[str]:
    """Why a node is unhealthy, in its own words; they are untrusted, so they stay text."""
    health = node.health if isinstance(node.health, dict) else {}
    raw = health.get("problems") or []
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
        versions = health.get("versions") or told.get("versions") or facts.get("versions") or {}
        found = (
            [(str(k)[:40], str(v)[:80]) for k, v in versions.items()] if isinstance(versions, dict) else []
        )
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

    @property
    def why(self) -> str:
        """One sentence for a plane that isn't healthy."""
        if self.plane.engine == Plane.Engine.KUBERNETES:
            return "Workers drive this cluster; its cells' namespaces are in `cyto planes places`."
        if self.state == "none":
            return "No agent has enrolled yet."
        for row in self.nodes:
            if row.state == "offline":
                return f"{row.node.name} was last heard of too long ago; what runs there goes on."
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


def planes() -> list[PlaneRow]:
    """Every plane with its nodes; a constant number of queries."""
    certificates = _certificates()
    replicas = {
        row["plane"]: row
        for row in Replica.objects.exclude(wanted=Replica.Wanted.STOP)
        .values("plane")
        .annotate(total=Count("id"), good=Count("id", filter=Q(phase=Replica.Phase.HEALTHY)))
    }
    tenants = dict(
        Environment.objects.exclude(plane=None)
        .values_list("plane")
        .annotate(total=Count("tenant", distinct=True))
    )
    rows = []
    for plane in Plane.objects.select_related("owner").prefetch_related("nodes").order_by("name"):
        nodes = [
            NodeRow(n, node_state(n, plane), problems(n), certificates.get(n.pk))
            for n in sorted(plane.nodes.all(), key=lambda n: n.name)
        ]
        counts = replicas.get(plane.pk, {})
        rows.append(
            PlaneRow(
                plane=plane,
                state=_worst(nodes),
                nodes=nodes,
                replicas=counts.get("total", 0),
                healthy=counts.get("good", 0),
                tenants=tenants.get(plane.pk, 0),
            )
        )
    return rows


def _worst(nodes: list[NodeRow]) -> str:
    agents = [row.state for row in nodes if row.node.kind == Node.Kind.AGENT]
    if not agents:
        return "none"
    return next(s for s in ("offline", "unhealthy", "behind", "healthy") if s in agents)


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
