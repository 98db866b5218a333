"""What a tenant's plan allows, summed over what its cells are meant to run."""

from __future__ import annotations

from dataclasses import dataclass

from cells.specification import Specification
from controlplane.errors import CytoplaneError
from projects.models import Cell, Project
from tenants.models import Tenant


@dataclass
class Usage:
    """Memory in MiB, CPU in cores."""

    components: int = 0
    replicas: int = 0
    memory: int = 0
    cpu: float = 0.0

    def add(self, specification: Specification, scale: dict[str, int]) -> None:
        for name, component in specification.components.items():
            replicas = int(scale.get(name, component.replicas))
            self.components += 1
            self.replicas += replicas
            self.memory += replicas * component.limits.memory
            self.cpu += replicas * component.limits.cpu


def usage(tenant: Tenant, without: Cell | None = None) -> Usage:
    """What the tenant's serving releases use; ``without`` leaves a cell out."""
    total = Usage()
    cells = Cell.objects.filter(project__tenant=tenant).exclude(serving_release=None)
    if without is not None:
        cells = cells.exclude(pk=without.pk)
    for cell in cells.select_related("serving_release"):
        total.add(Specification.from_dict(cell.serving_release.specification), cell.scale)
    return total


def check(cell: Cell, specification: Specification, scale: dict[str, int]) -> None:
    """Raise `quota` if the tenant's plan doesn't allow this specification in this cell.

    Call in a transaction: the tenant's row is locked, so that two deployments can't both fit alone.
    """
    tenant = Tenant.objects.select_for_update().select_related("plan").get(pk=cell.project.tenant_id)
    total = usage(tenant, without=cell)
    total.add(specification, scale)
    plan = tenant.plan
    for what, wanted, limit in (
        ("components", total.components, plan.components),
        ("replicas", total.replicas, plan.replicas),
        ("MiB of memory", total.memory, plan.memory_mib),
        ("CPU cores", round(total.cpu, 2), plan.cpu),
    ):
        if wanted > limit:
            raise CytoplaneError("quota", tenant=tenant.slug, limit=limit, what=what, wanted=wanted)


def check_projects(tenant: Tenant) -> None:
    """Raise `quota` if one more project is too many."""
    tenant = Tenant.objects.select_for_update().select_related("plan").get(pk=tenant.pk)
    number = Project.objects.filter(tenant=tenant).count() + 1
    if number > tenant.plan.projects:
        raise CytoplaneError(
            "quota", tenant=tenant.slug, limit=tenant.plan.projects, what="projects", wanted=number
        )
