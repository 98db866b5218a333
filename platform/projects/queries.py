"""Reads of projects and cells for API, git and CLI. Names are looked up below what the actor may see."""

from __future__ import annotations

from django.db.models import QuerySet

from controlplane.errors import not_found
from projects.models import Cell, ConfigVariable, Host, Project
from tenants.policy import Actor, get_tenant


def get_project(actor: Actor, tenant: str, project: str, action: str = "read") -> Project:
    """The project if the actor may perform ``action`` in its tenant; else as if it didn't exist."""
    row = get_tenant(actor, tenant, action)
    found = Project.objects.filter(tenant=row, slug=project).first()
    if found is None:
        raise not_found("project")
    found.tenant = row
    return found


def get_cell(actor: Actor, tenant: str, project: str, environment: str, action: str = "read") -> Cell:
    """The cell where project and environment meet."""
    row = get_project(actor, tenant, project, action)
    found = (
        Cell.objects.select_related("environment__plane", "serving_release")
        .filter(project=row, environment__name=environment)
        .first()
    )
    if found is None:
        raise not_found("environment")
    found.project = row
    return found


def variables(cell: Cell) -> QuerySet[ConfigVariable]:
    return cell.variables.select_related("component").order_by("name", "component__name")


def hosts(cell: Cell) -> QuerySet[Host, tuple[str, str]]:
    """Component and host name of the cell's public endpoints, by name."""
    found = Host.objects.filter(endpoint__workload__cell=cell).order_by("name")
    return found.values_list("endpoint__workload__component__name", "name")
