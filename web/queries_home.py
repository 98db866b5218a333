"""The tenant's home: projects with their state and traffic, and what needs attention first."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from datetime import timedelta

from django.db.models import Count, Max, Q, Sum
from django.db.models.functions import TruncMinute
from django.utils import timezone

from cells.boundary.model import DENY
from delivery.models import Deployment, Replica
from projects.models import Cell, Project
from telemetry.models import Edge
from tenants.models import Tenant

#: Minutes of traffic on a card.
MINUTES = 30
PAGE = 24


@dataclass
class CellCard:
    """A cell on its project's card."""

    environment: str
    state: str
    url: str
    release: int = 0
    newest: Deployment | None = None


@dataclass
class ProjectCard:
    project: Project
    url: str
    cells: list[CellCard] = field(default_factory=list)
    points: list[int] = field(default_factory=list)
    denied_points: list[int] = field(default_factory=list)

    @property
    def newest(self) -> Deployment | None:
        """The project's last deployment in any environment."""
        found = [cell.newest for cell in self.cells if cell.newest]
        return max(found, key=lambda d: d.pk, default=None)

    @property
    def total(self) -> int:
        return sum(self.points)


@dataclass
class Attention:
    """Something that wants a look: a sentence, where it leads, how bad it is."""

    tone: str
    icon: str
    text: str
    detail: str
    url: str
    at: object = None


def projects_page(tenant: Tenant, search: str, page: int) -> tuple[list[Project], int]:
    """One page of the tenant's projects by name, and how many there are."""
    found = Project.objects.filter(tenant=tenant)
    if search:
        found = found.filter(Q(slug__icontains=search) | Q(description__icontains=search))
    total = found.count()
    return list(found.order_by("slug")[(page - 1) * PAGE : page * PAGE]), total


def newest_deployments(cells: list[int]) -> dict[int, Deployment]:
    """The last deployment of each cell, by cell."""
    found = Deployment.objects.filter(cell__in=cells).order_by("cell_id", "-id").distinct("cell_id")
    return {d.cell_id: d for d in found}


def _serving(cells: list[int]) -> dict[int, tuple[int, int]]:
    """Cell → replicas that serve, replicas that are meant to."""
    rows = (
        Replica.objects.filter(workload__cell__in=cells, wanted=Replica.Wanted.SERVE)
        .values("workload__cell")
        .annotate(meant=Count("id"), good=Count("id", filter=Q(phase=Replica.Phase.HEALTHY)))
    )
    return {row["workload__cell"]: (row["good"], row["meant"]) for row in rows}


def _traffic(cells: list[int]) -> tuple[dict[int, list[int]], dict[int, list[int]]]:
    """Cell → packets of each minute, allowed and denied, oldest first."""
    now = timezone.now().replace(second=0, microsecond=0)
    start = now - timedelta(minutes=MINUTES - 1)
    rows = (
        Edge.objects.filter(cell__in=cells, minute__gte=start)
        .annotate(slot=TruncMinute("minute"))
        .values("cell", "slot", "verdict")
        .annotate(packets=Sum("packets"))
    )
    good: dict[int, list[int]] = defaultdict(lambda: [0] * MINUTES)
    bad: dict[int, list[int]] = defaultdict(lambda: [0] * MINUTES)
    for row in rows:
        index = int((row["slot"] - start).total_seconds() // 60)
        if 0 <= index < MINUTES:
            (bad if row["verdict"] == DENY else good)[row["cell"]][index] += row["packets"]
    return good, bad


def cards(tenant: Tenant, projects: list[Project]) -> list[ProjectCard]:
    """The projects' cards; five queries for any number of them."""
    cells = list(
        Cell.objects.filter(project__in=projects)
        .select_related("environment", "serving_release")
        .order_by("-environment__position")
    )
    ids = [cell.pk for cell in cells]
    newest, serving, (good, bad) = newest_deployments(ids), _serving(ids), _traffic(ids)
    by_project = {p.pk: ProjectCard(p, f"/{tenant.slug}/{p.slug}") for p in projects}
    for card in by_project.values():
        card.points, card.denied_points = [0] * MINUTES, [0] * MINUTES
    for cell in cells:
        card = by_project[cell.project_id]
        state = _state(cell, newest.get(cell.pk), serving.get(cell.pk, (0, 0)))
        release = cell.serving_release.number if cell.serving_release else 0
        url = f"{card.url}/{cell.environment.name}"
        card.cells.append(CellCard(cell.environment.name, state, url, release, newest.get(cell.pk)))
        for i in range(MINUTES):
            card.points[i] += good[cell.pk][i]
            card.denied_points[i] += bad[cell.pk][i]
    return list(by_project.values())


def _state(cell: Cell, newest: Deployment | None, serving: tuple[int, int]) -> str:
    if cell.serving_release_id is None:
        if newest is None:
            return "empty"
        return "deploying" if newest.state not in Deployment.ENDED else "failed"
    good, meant = serving
    if good == 0 and meant:
        return "down"
    return "degraded" if good < meant else "serving"


def attention(tenant: Tenant) -> list[Attention]:
    """What somebody of this tenant should look at now; newest first within how bad it is."""
    found = _failed_deployments(tenant) + _denials(tenant) + _offline_planes(tenant) + _quota(tenant)
    return sorted(found, key=lambda a: {"bad": 0, "warn": 1}.get(a.tone, 2))[:6]


def _failed_deployments(tenant: Tenant) -> list[Attention]:
    """Cells whose last deployment failed and wasn't followed by another one."""
    newest = (
        Deployment.objects.filter(cell__project__tenant=tenant)
        .order_by("cell_id", "-id")
        .distinct("cell_id")
        .values("id")
    )
    rows = Deployment.objects.filter(
        id__in=newest, state=Deployment.State.FAILED, ended_at__gte=timezone.now() - timedelta(days=3)
    ).select_related("cell__project", "cell__environment")
    return [
        Attention(
            "bad", "circle-x",
            f"The last deployment of {d.cell.project} to {d.cell.environment} failed.",
            d.error.get("message", ""),
            f"/{tenant.slug}/{d.cell.project}/{d.cell.environment}/deployments/{d.pk}", d.ended_at,
        )
        for d in rows.order_by("-id")[:4]
    ]  # fmt: skip


def _denials(tenant: Tenant) -> list[Attention]:
    """Cells with refused calls in the last half hour."""
    rows = (
        Edge.objects.filter(
            cell__project__tenant=tenant, last_at__gte=timezone.now() - timedelta(minutes=MINUTES)
        )
        .filter(verdict=DENY)
        .values("cell__project__slug", "cell__environment__name")
        .annotate(packets=Sum("packets"), last=Max("last_at"))
        .order_by("-last")[:4]
    )
    return [
        Attention(
            "warn", "shield-x",
            f"Calls were refused in {row['cell__project__slug']}, {row['cell__environment__name']}.",
            f"{row['packets']} packets in the last {MINUTES} minutes",
            f"/{tenant.slug}/{row['cell__project__slug']}/{row['cell__environment__name']}#edges", row["last"],
        )
        for row in rows
    ]  # fmt: skip


def _offline_planes(tenant: Tenant) -> list[Attention]:
    from web.queries_admin import node_state

    found = []
    for environment in tenant.environments.select_related("plane").prefetch_related("plane__nodes"):
        if environment.plane is None:
            continue
        states = [
            node_state(n, environment.plane) for n in environment.plane.nodes.all() if n.kind == "agent"
        ]
        if states and all(state == "offline" for state in states):
            text = f"The data plane of {environment.name} is offline: what runs goes on, changes wait."
            found.append(Attention("bad", "wifi-off", text, environment.plane.name, f"/{tenant.slug}"))
    return found


@dataclass
class Usage:
    """One quota: what is used and what the plan allows."""

    word: str
    used: float
    limit: float
    unit: str = ""

    @property
    def share(self) -> float:
        return self.used / self.limit if self.limit else 0.0

    @property
    def high(self) -> float:
        return self.limit * 0.9

    @property
    def low(self) -> float:
        return self.limit * 0.75


def usage(tenant: Tenant) -> list[Usage]:
    """What the tenant uses of its plan."""
    from web.specification import components

    plan = tenant.plan
    replicas = (
        Replica.objects.filter(workload__cell__project__tenant=tenant)
        .exclude(wanted__in=[Replica.Wanted.STOP, Replica.Wanted.DRAIN, Replica.Wanted.ONCE])
        .select_related("release", "workload__component")
    )
    memory = cpu = 0.0
    total = 0
    parsed: dict[int, dict] = {}
    for replica in replicas:
        total += 1
        specs = parsed.setdefault(replica.release_id, components(replica.release.specification))
        spec = specs.get(replica.workload.component.name)
        if spec:
            memory += _mib(spec.memory)
            cpu += float(spec.cpu or 0)
    counts = Project.objects.filter(tenant=tenant).aggregate(
        projects=Count("id", distinct=True), components=Count("components", distinct=True)
    )
    return [
        Usage("Projects", counts["projects"], plan.projects),
        Usage("Components", counts["components"], plan.components),
        Usage("Replicas", total, plan.replicas),
        Usage("Memory", memory, plan.memory_mib, "MiB"),
        Usage("CPU", round(cpu, 2), plan.cpu, "cores"),
    ]


def _mib(text: str) -> float:
    number, _, unit = text.partition(" ")
    try:
        return float(number) * {"GiB": 1024}.get(unit, 1)
    except ValueError:
        return 0.0


def _quota(tenant: Tenant) -> list[Attention]:
    return [
        Attention(
            "warn", "gauge", f"{item.word}: {item.used:g} of {item.limit:g} {item.unit}".strip() + " are used.",
            f"plan {tenant.plan.name}", f"/{tenant.slug}/-/usage",
        )
        for item in usage(tenant)
        if item.share >= 0.9
    ]  # fmt: skip
