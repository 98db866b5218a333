"""What a tenant's plan allows, summed over what its cells are meant to run."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

from django.db.models import Q, QuerySet

from cells.specification import Component, Specification
from controlplane.errors import CytoplaneError
from projects.models import Cell, Project
from tenants.models import Plan, Tenant


@dataclass
class Usage:
    """Memory in MiB, CPU in cores."""

    components: int = 0
    replicas: int = 0
    memory: int = 0
    cpu: float = 0.0

    def add(self, specification: Specification, scale: dict[str, int]) -> None:
        for name, component in specification.components.items():
            replicas = component.number(scale.get(name))
            self.components += 1
            self.replicas += replicas
            self.memory += replicas * component.limits.memory
            self.cpu += replicas * component.limits.cpu

    def add_one(self, component: Component) -> None:
        """A replica more."""
        self.replicas += 1
        self.memory += component.limits.memory
        self.cpu += component.limits.cpu

    def extend(self, one_of: list[Usage]) -> None:
        """Add the most of each kind that one of several uses."""
        self.components += max(use.components for use in one_of)
        self.replicas += max(use.replicas for use in one_of)
        self.memory += max(use.memory for use in one_of)
        self.cpu += max(use.cpu for use in one_of)


def usage(tenant: Tenant, without: Cell | None = None) -> Usage:
    """What the tenant's cells use: of each, the most of what serves and what is on its way there.

    ``without`` leaves a cell out.
    """
    from delivery.queries import underway

    meant: dict[int, list[Specification]] = defaultdict(list)
    cells = {cell.pk: cell for cell in Cell.objects.filter(project__tenant=tenant)}
    if without is not None:
        cells.pop(without.pk, None)
    serving = Cell.objects.filter(pk__in=cells).exclude(serving_release=None)
    for pk, document in serving.values_list("pk", "serving_release__specification"):
        meant[pk].append(Specification.from_dict(document))
    for pk, specification in underway(Q(cell__in=cells)):
        meant[pk].append(specification)
    total = Usage()
    for pk, specifications in meant.items():
        total.extend([_of(specification, cells[pk].scale) for specification in specifications])
    for component in _running(tenant):
        total.add_one(component)
    return total


def _running(tenant: Tenant) -> Iterator[Component]:
    """Components whose runs go on, one for each."""
    from delivery.models import Run

    rows = Run.objects.filter(workload__cell__project__tenant=tenant, state__in=Run.ACTIVE)
    for name, document in rows.values_list("workload__component__name", "release__specification"):
        yield Specification.from_dict(document).components[name]


def _locked() -> QuerySet[Tenant]:
    """Tenants, with plans, as who counts locks them.

    Not their plans, which tenants share; and what only names a tenant (an event of the audit) needn't wait.
    """
    return Tenant.objects.select_for_update(no_key=True, of=("self",)).select_related("plan")


def check_run(cell: Cell, component: Component) -> None:
    """Raise `quota` if the plan doesn't allow one more replica of the component for a while. As ``check``."""
    tenant = _locked().get(pk=cell.project.tenant_id)
    total = usage(tenant)
    total.add_one(component)
    _within(tenant, total)


def _of(specification: Specification, scale: dict[str, int]) -> Usage:
    made = Usage()
    made.add(specification, scale)
    return made


def check(cell: Cell, specification: Specification, scale: dict[str, int]) -> None:
    """Raise `quota` if the tenant's plan doesn't allow this specification in this cell.

    Call in the transaction that puts it under way: the tenant's row stays locked until then, so that two
    deployments can't both fit alone.
    """
    tenant = _locked().get(pk=cell.project.tenant_id)
    total = usage(tenant, without=cell)
    total.add(specification, scale)
    _within(tenant, total, *_network(specification, tenant.plan))


def _within(tenant: Tenant, total: Usage, *more: tuple[str, float, float]) -> None:
    plan = tenant.plan
    for what, wanted, limit in (
        ("components", total.components, plan.components),
        ("replicas", total.replicas, plan.replicas),
        ("MiB of memory", total.memory, plan.memory_mib),
        ("CPU cores", round(total.cpu, 2), plan.cpu),
        *more,
    ):
        if wanted > limit:
            raise CytoplaneError("quota", tenant=tenant.slug, limit=limit, what=what, wanted=wanted)


def _network(specification: Specification, plan: Plan) -> Iterator[tuple[str, float, float]]:
    """The most that one component declares, against the plan's ceilings."""
    declared = [component.limits for component in specification.components.values()]
    for what, amounts, ceiling in (
        ("Mbit/s for a component", [d.bandwidth_in / 10**6 for d in declared], plan.bandwidth_mbit),
        ("Mbit/s for a component", [d.bandwidth_out / 10**6 for d in declared], plan.bandwidth_mbit),
        (
            "new connections per second for a component",
            [d.connections_per_second for d in declared],
            plan.connections_per_second,
        ),
        ("open connections for a component", [d.connections for d in declared], plan.connections),
    ):
        if ceiling:
            yield what, round(max(amounts, default=0), 3), ceiling


def check_projects(tenant: Tenant) -> None:
    """Raise `quota` if one more project is too many."""
    tenant = _locked().get(pk=tenant.pk)
    number = Project.objects.filter(tenant=tenant).count() + 1
    if number > tenant.plan.projects:
        raise CytoplaneError(
            "quota", tenant=tenant.slug, limit=tenant.plan.projects, what="projects", wanted=number
        )
