"""The only writers of projects, cells, scale and configuration. Each is atomic and audited."""

from __future__ import annotations

import re

from django.db import IntegrityError, transaction
from django.db.models import Count, Sum
from django.db.models.functions import Length

from cells.provisioning import actions as provisioning
from cells.specification import Specification
from controlplane.errors import CytoplaneError
from dataplane.planes import actions as planes
from dataplane.planes import numbers
from dataplane.planes.models import Plane
from projects import hosts, quotas
from projects.models import (
    Cell,
    Component,
    ConfigVariable,
    Connection,
    Endpoint,
    Environment,
    Project,
    Workload,
)
from tenants import audit, names
from tenants.keys import Box
from tenants.models import Tenant
from tenants.policy import Actor, authorise

#: name → (position, branch)
DEFAULT_ENVIRONMENTS = {"staging": (0, "staging"), hosts.PRODUCTION: (1, "main")}
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,79}")
LARGEST_VALUE = 32 * 1024
#: Of all variables of a cell together: each process gets them, each release keeps them, and a cluster's
#: secret holds no more than 1 MiB.
MOST_VARIABLES, LARGEST_CONFIGURATION = 1000, 512 * 1024
#: Given by the platform to every process.
RESERVED_VARIABLES = frozenset({"PORT", "CYTOPLANE_COMPONENT", "CYTOPLANE_RELEASE"})


def create_default_environments(tenant: Tenant) -> None:
    """The two environments that a tenant begins with, on the first shared machine."""
    plane = Plane.objects.filter(owner=None, engine=Plane.Engine.MACHINE).order_by("pk").first()
    for name, (position, branch) in DEFAULT_ENVIRONMENTS.items():
        Environment.objects.create(tenant=tenant, name=name, position=position, branch=branch, plane=plane)


def _create_cell(project: Project, environment: Environment) -> Cell:
    cell = Cell.objects.create(
        project=project,
        environment=environment,
        number=numbers.allocate("cell"),
        gateway_identity=numbers.allocate("identity"),
        rule=numbers.allocate("rule"),
        gateway_index=numbers.allocate("gateway"),
    )
    provisioning.settle(cell)
    planes.note(environment.plane, [cell.number])
    return cell


@transaction.atomic
def create_project(
    *, acting_user: Actor, tenant: Tenant, slug: str, description: str = "", strict: bool = False
) -> Project:
    """A project with a cell in each environment."""
    authorise(acting_user, "create project", tenant)
    names.validate(slug)
    quotas.check_projects(tenant)
    try:
        with transaction.atomic():
            project = Project.objects.create(
                tenant=tenant, slug=slug, description=description[:240], strict=strict
            )
    except IntegrityError:
        raise CytoplaneError("name-taken", kind="project", name=slug)
    # Locked: one that is just being bound to another plane is waited for, else its cell would stay behind.
    for environment in tenant.environments.select_for_update(no_key=True):
        _create_cell(project, environment)
    audit.record(acting_user, "project.create", project, tenant=tenant)
    return project


@transaction.atomic
def destroy_project(*, acting_user: Actor, project: Project, confirm: str) -> None:
    """Remove a project, what runs of it, its releases and its repository."""
    tenant = project.tenant
    authorise(acting_user, "destroy project", tenant)
    if confirm != project.slug:
        raise CytoplaneError("confirmation-missing", kind="project", name=project.slug)
    from delivery.models import Deployment, Replica
    from delivery.tasks import remove_repository

    # Who takes a step of a deployment has its row before the cell's, and makes replicas with the first alone.
    working = Deployment.objects.filter(cell__project=project).exclude(
        state__in=(Deployment.State.QUEUED, *Deployment.ENDED)
    )
    list(working.order_by("pk").select_for_update(of=("self",)))
    touched: dict[Plane, list[int]] = {}
    # Nothing begins in them from here on that would keep its address for ever.
    list(project.cells.order_by("pk").select_for_update())
    for cell in project.cells.exclude(environment__plane=None).select_related("environment__plane"):
        touched.setdefault(cell.environment.plane, []).append(cell.number)
    for replica in Replica.objects.filter(workload__cell__project=project).select_related("plane"):
        numbers.free_address(replica.plane, replica.address_index)
        replica.delete()
    audit.record(acting_user, "project.destroy", project, tenant=tenant)
    remove_repository.enqueue(tenant.pk, project.pk)
    provisioning.leave(project.cells.all())
    project.cells.update(serving_release=None)
    project.cells.all().delete()
    project.delete()
    for plane, cells in touched.items():
        planes.touch(plane, cells)


@transaction.atomic
def set_strict(*, acting_user: Actor, project: Project, strict: bool) -> Project:
    """Whether only declared connections pass inside the project's cells; in force at once."""
    return _set(acting_user, project, "strict", strict)


@transaction.atomic
def set_audit(*, acting_user: Actor, project: Project, audited: bool) -> Project:
    """Whether what the project's declarations could open passes and is reported; in force at once."""
    return _set(acting_user, project, "audit", audited)


def _set(acting_user: Actor, project: Project, mode: str, wanted: bool) -> Project:
    authorise(acting_user, "configure", project.tenant)
    before = getattr(project, mode)
    setattr(project, mode, wanted)
    project.save(update_fields=[mode])
    changes = {mode: [before, wanted]}
    audit.record(acting_user, f"project.{mode}", project, tenant=project.tenant, changes=changes)
    _touch_planes(project)
    return project


@transaction.atomic
def set_waits(*, acting_user: Actor, tenant: Tenant, name: str, waits: bool) -> Environment:
    """Whether deployments into an environment wait for a plane that is offline, instead of failing."""
    authorise(acting_user, "manage environments", tenant)
    row = Environment.objects.select_for_update(of=("self",)).filter(tenant=tenant, name=name).first()
    if row is None:
        raise CytoplaneError("not-found", kind="environment")
    before, row.waits = row.waits, waits
    row.save(update_fields=["waits"])
    audit.record(acting_user, "environment.waits", row, tenant=tenant, changes={"waits": [before, waits]})
    return row


def _touch_planes(project: Project) -> None:
    for cell in project.cells.select_related("environment__plane"):
        if cell.environment.plane:
            planes.touch(cell.environment.plane, [cell.number])


@transaction.atomic
def set_variables(
    *,
    acting_user: Actor,
    cell: Cell,
    set: dict[str, str] | None = None,
    secrets: dict[str, str] | None = None,
    unset: list[str] | None = None,
    component: str = "",
) -> bool:
    """Change configuration; whether anything changed. What is released gets a new release with it.

    The audit event names the variables and never their values.
    """
    tenant = cell.project.tenant
    authorise(acting_user, "configure", tenant)
    target = _component(cell, component)
    given = {**dict.fromkeys(set or {}, False), **dict.fromkeys(secrets or {}, True)}
    values = {**(set or {}), **(secrets or {})}
    cell = (
        Cell.objects.select_for_update(of=("self",), no_key=True)
        .select_related("project__tenant", "environment")
        .get(pk=cell.pk)
    )
    for name, value in values.items():
        _validate_variable(name, value)
    box = Box(tenant.pk)
    changed: dict[str, list[str]] = {"set": [], "secret": [], "unset": []}
    for name, value in values.items():
        row = cell.variables.filter(name=name, component=target).first()
        if row and row.is_secret == given[name] and box.unseal(row.sealed, _purpose(cell)) == value:
            continue
        row = row or ConfigVariable(cell=cell, component=target, name=name)
        row.sealed = box.seal(value, _purpose(cell))
        row.is_secret = given[name]
        row.changed_by = acting_user.name
        row.save()
        changed["secret" if given[name] else "set"].append(name)
    for name in unset or []:
        if cell.variables.filter(name=name, component=target).delete()[0]:
            changed["unset"].append(name)
    changed = {key: value for key, value in changed.items() if value}
    if not changed:
        return False
    if values:
        _fits(cell)
    cell.config_version += 1
    cell.save(update_fields=["config_version"])
    audit.record(acting_user, "config.change", cell, tenant=tenant, changes=changed)
    if cell.serving_release_id:
        from delivery.actions import deploy_configuration

        deploy_configuration(acting_user=acting_user, cell=cell)
    return True


def _component(cell: Cell, name: str) -> Component | None:
    if not name:
        return None
    found = Component.objects.filter(project=cell.project, name=name).first()
    if found is None:
        raise CytoplaneError("not-found", kind="component")
    return found


def _purpose(cell: Cell) -> str:
    return f"config:{cell.pk}"


def _validate_variable(name: str, value: str) -> None:
    if not _VARIABLE.fullmatch(name):
        raise CytoplaneError(
            "invalid", field=name[:80], message=f"`{name[:80]}` can't be a variable: letters, digits and `_`."
        )
    if name in RESERVED_VARIABLES:
        raise CytoplaneError("invalid", field=name, message=f"`{name}` is set by the platform.")
    if "\0" in value or len(value.encode()) > LARGEST_VALUE:
        raise CytoplaneError(
            "invalid",
            field=name,
            message=f"The value of `{name}` is larger than 32 KiB or holds a zero byte.",
        )


def _fits(cell: Cell) -> None:
    """Raise `invalid` if the cell's variables are too many, or too large together."""
    found = cell.variables.aggregate(number=Count("pk"), size=Sum(Length("sealed")))
    if found["number"] > MOST_VARIABLES or found["size"] > LARGEST_CONFIGURATION:
        raise CytoplaneError(
            "invalid",
            field="the variables",
            message=f"A cell has at most {MOST_VARIABLES} variables, "
            f"{LARGEST_CONFIGURATION // 1024} KiB together.",
        )


def configuration(cell: Cell) -> dict[str, dict[str, str]]:
    """All variables in clear, by component ("" for all of them). Only for making a release."""
    box = Box(cell.project.tenant_id)
    values: dict[str, dict[str, str]] = {}
    for row in cell.variables.select_related("component"):
        part = values.setdefault(row.component.name if row.component else "", {})
        part[row.name] = box.unseal(row.sealed, _purpose(cell))
    return values


def variable_value(cell: Cell, variable: ConfigVariable) -> str | None:
    """A plain variable's value; None for a secret, which is never shown again."""
    if variable.is_secret:
        return None
    return Box(cell.project.tenant_id).unseal(variable.sealed, _purpose(cell))


def sync_specification(*, cell: Cell, specification: Specification) -> None:
    """Give everything that the specification declares its rows and numbers, and reserve its hosts.

    Only adds: what an older release still needs goes on existing, and its hosts lead where they led.
    Raises `host-taken` and `quota`. Call in the transaction that makes the release or puts it under way
    again, with the cell's row locked.
    """
    from autoscaling.actions import let_go

    let_go(cell, specification)
    quotas.check(cell, specification, cell.scale)
    hosts.reserve(cell, specification)
    for name, declared in specification.components.items():
        component, _ = Component.objects.update_or_create(
            project=cell.project, name=name, defaults={"kind": declared.kind}
        )
        workload = Workload.objects.filter(cell=cell, component=component).first()
        if workload is None:
            workload = Workload.objects.create(
                cell=cell,
                component=component,
                identity=numbers.allocate("identity"),
                service_index=numbers.allocate("service"),
            )
        known = set(workload.endpoints.values_list("name", flat=True))
        for key in declared.endpoints:
            if key not in known:
                Endpoint.objects.create(workload=workload, name=key, rule=numbers.allocate("rule"))
        keys = set(workload.connections.values_list("key", flat=True))
        for connection in declared.connections:
            if connection.key not in keys:
                keys.add(connection.key)
                if connection.external and connection.external.public and workload.door_port is None:
                    workload.door_port = numbers.allocate("door")
                    workload.save(update_fields=["door_port"])
                Connection.objects.create(
                    workload=workload,
                    key=connection.key,
                    rule=numbers.allocate("rule"),
                    listener_port=numbers.allocate("listener", cell.project.tenant_id),
                )
