"""REST API of projects, environments, components, configuration."""

from __future__ import annotations

from typing import Any

from django.db import transaction
from django.http import HttpRequest
from ninja import Router, Schema

from cells.specification import Specification
from controlplane.errors import CytoplaneError
from dataplane.planes import network
from delivery.publish import address
from projects import actions, queries
from projects.models import Cell, Environment, Project
from tenants.api import actor_of
from tenants.policy import get_tenant

router = Router()
_CELL = "/tenants/{tenant}/projects/{project}/environments/{environment}"


class EnvironmentChange(Schema):
    """``offline``: what deployments do whose plane is offline, `wait` or `fail`."""

    offline: str


class NewProject(Schema):
    slug: str
    description: str = ""
    strict: bool = False


class ProjectChange(Schema):
    """What is left out stays as it is."""

    strict: bool | None = None
    audit: bool | None = None


class Configuration(Schema):
    set: dict[str, str] = {}
    secret: dict[str, str] = {}
    unset: list[str] = []
    component: str = ""


def project_out(project: Project) -> dict[str, Any]:
    return {
        "slug": project.slug,
        "description": project.description,
        "strict": project.strict,
        "audit": project.audit,
        "created_at": project.created_at,
        "git": f"/git/{project.tenant.slug}/{project.slug}.git",
    }


def environment_out(environment: Environment) -> dict[str, Any]:
    return {
        "name": environment.name,
        "position": environment.position,
        "branch": environment.branch,
        "plane": environment.plane.name if environment.plane else None,
        "offline": "wait" if environment.waits else "fail",
    }


@router.get(
    "/tenants/{tenant}/environments", operation_id="list_environments", summary="Stages of the pipeline"
)
def list_environments(request: HttpRequest, tenant: str) -> list[dict[str, Any]]:
    row = get_tenant(actor_of(request), tenant)
    return [environment_out(e) for e in row.environments.select_related("plane")]


@router.patch(
    "/tenants/{tenant}/environments/{environment}",
    operation_id="change_environment",
    summary="What deployments do whose plane is offline",
)
def change_environment(
    request: HttpRequest, tenant: str, environment: str, body: EnvironmentChange
) -> dict[str, Any]:
    actor = actor_of(request)
    if body.offline not in ("wait", "fail"):
        raise CytoplaneError("invalid", field="offline", message="`offline` is wait or fail.")
    row = actions.set_waits(
        acting_user=actor,
        tenant=get_tenant(actor, tenant),
        name=environment,
        waits=body.offline == "wait",
    )
    return environment_out(row)


@router.get("/tenants/{tenant}/projects", operation_id="list_projects", summary="Projects of a tenant")
def list_projects(request: HttpRequest, tenant: str) -> list[dict[str, Any]]:
    row = get_tenant(actor_of(request), tenant)
    return [project_out(p) for p in row.projects.select_related("tenant")]


@router.post("/tenants/{tenant}/projects", operation_id="create_project", summary="Create a project")
def create_project(request: HttpRequest, tenant: str, body: NewProject) -> dict[str, Any]:
    actor = actor_of(request)
    row = get_tenant(actor, tenant)
    project = actions.create_project(
        acting_user=actor, tenant=row, slug=body.slug, description=body.description, strict=body.strict
    )
    return project_out(project)


@router.get(
    "/tenants/{tenant}/projects/{project}", operation_id="get_project", summary="A project and its cells"
)
def read_project(request: HttpRequest, tenant: str, project: str) -> dict[str, Any]:
    row = queries.get_project(actor_of(request), tenant, project)
    cells = row.cells.select_related("environment", "serving_release").order_by("environment__position")
    return project_out(row) | {
        "environments": [
            {
                "name": cell.environment.name,
                "branch": cell.environment.branch,
                "release": cell.serving_release.number if cell.serving_release else None,
            }
            for cell in cells
        ]
    }


@router.patch(
    "/tenants/{tenant}/projects/{project}",
    operation_id="change_project",
    summary="Strict or not, in audit or not",
)
def change_project(request: HttpRequest, tenant: str, project: str, body: ProjectChange) -> dict[str, Any]:
    actor = actor_of(request)
    row = queries.get_project(actor, tenant, project)
    if body.strict is None and body.audit is None:
        raise CytoplaneError("invalid", field="body", message="Neither `strict` nor `audit` is given.")
    with transaction.atomic():
        if body.strict is not None:
            row = actions.set_strict(acting_user=actor, project=row, strict=body.strict)
        if body.audit is not None:
            row = actions.set_audit(acting_user=actor, project=row, audited=body.audit)
    return project_out(row)


@router.delete(
    "/tenants/{tenant}/projects/{project}",
    operation_id="destroy_project",
    summary="Destroy a project; confirm by name",
)
def destroy_project(request: HttpRequest, tenant: str, project: str, confirm: str = "") -> dict[str, Any]:
    row = queries.get_project(actor_of(request), tenant, project)
    actions.destroy_project(acting_user=actor_of(request), project=row, confirm=confirm)
    return {}


def _specification(cell: Cell) -> Specification:
    if cell.serving_release is None:
        return Specification(components={})
    return Specification.from_dict(cell.serving_release.specification)


@router.get(f"{_CELL}/components", operation_id="list_components", summary="Components of what serves")
def list_components(
    request: HttpRequest, tenant: str, project: str, environment: str
) -> list[dict[str, Any]]:
    cell = queries.get_cell(actor_of(request), tenant, project, environment)
    specification = _specification(cell)
    document, limits = specification.as_dict(), network.in_force(cell, specification)
    urls: dict[str, list[str]] = {}
    for component, host in queries.hosts(cell):
        urls.setdefault(component, []).append(address(host))
    return [
        {
            "name": name,
            "replicas_wanted": int(cell.scale.get(name, c["replicas"])),
            "urls": urls.get(name, []),
            "limits_in_force": limits[name],
            **c,
        }
        for name, c in sorted(document["components"].items())
    ]


@router.get(
    f"{_CELL}/connections", operation_id="list_connections", summary="Declared connections of what serves"
)
def list_connections(
    request: HttpRequest, tenant: str, project: str, environment: str
) -> list[dict[str, Any]]:
    cell = queries.get_cell(actor_of(request), tenant, project, environment)
    found = []
    for name, component in sorted(_specification(cell).components.items()):
        for connection in component.connections:
            external = connection.external
            found.append(
                {
                    "component": name,
                    "name": connection.name,
                    "to": connection.to,
                    "external": (external.cidr or external.host) if external else None,
                    "port": external.port if external else None,
                    "protocol": external.protocol if external else None,
                }
            )
    return found


@router.get(f"{_CELL}/config", operation_id="get_config", summary="Variables; secrets without their values")
def read_config(request: HttpRequest, tenant: str, project: str, environment: str) -> list[dict[str, Any]]:
    cell = queries.get_cell(actor_of(request), tenant, project, environment)
    return [
        {
            "name": row.name,
            "component": row.component.name if row.component else None,
            "secret": row.is_secret,
            "value": actions.variable_value(cell, row),
            "changed_at": row.changed_at,
            "changed_by": row.changed_by,
        }
        for row in queries.variables(cell)
    ]


@router.patch(f"{_CELL}/config", operation_id="change_config", summary="Set and unset variables and secrets")
def change_config(
    request: HttpRequest, tenant: str, project: str, environment: str, body: Configuration
) -> dict[str, Any]:
    cell = queries.get_cell(actor_of(request), tenant, project, environment)
    changed = actions.set_variables(
        acting_user=actor_of(request),
        cell=cell,
        set=body.set,
        secrets=body.secret,
        unset=body.unset,
        component=body.component,
    )
    underway = cell.deployments.order_by("-pk").first() if changed and cell.serving_release_id else None
    return {"changed": changed, "deployment": underway.pk if underway else None}
