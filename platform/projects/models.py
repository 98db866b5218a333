"""Projects, components, environments and the cells where they meet.

What a component looks like (endpoints, connections, health checks) is part of a release and
therefore differs between environments; the rows here hold what has an identity of its own and the
numbers allocated for it, which are never reused.
"""

from __future__ import annotations

from django.db import models
from django.db.models import Q

from tenants.models import Tenant


class Environment(models.Model):
    """A stage of a tenant's pipeline. ``branch`` pushed with git deploys here."""

    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE, related_name="environments")
    name = models.CharField(max_length=40)
    position = models.PositiveSmallIntegerField()
    branch = models.CharField(max_length=120)
    plane = models.ForeignKey(
        "planes.Plane", null=True, on_delete=models.PROTECT, related_name="environments"
    )
    #: Whether deployments wait for a plane that is offline, instead of failing.
    waits = models.BooleanField(default=False)

    class Meta:
        ordering = ["position"]
        constraints = [
            models.UniqueConstraint(fields=["tenant", "name"], name="environment_name"),
            models.UniqueConstraint(fields=["tenant", "branch"], name="environment_branch"),
        ]

    def __str__(self) -> str:
        return self.name


class Project(models.Model):
    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE, related_name="projects")
    slug = models.CharField(max_length=40)
    description = models.CharField(max_length=240, blank=True)
    strict = models.BooleanField(default=False)
    #: What its declarations could open but don't passes and is reported.
    audit = models.BooleanField(default=False)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["slug"]
        constraints = [models.UniqueConstraint(fields=["tenant", "slug"], name="project_slug")]

    def __str__(self) -> str:
        return self.slug


class Component(models.Model):
    """One deployable of a project, first seen in a push. Retired when no release has it any more."""

    class Kind(models.TextChoices):
        WEB = "web"
        SERVICE = "service"
        WORKER = "worker"
        CRON = "cron"
        JOB = "job"

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="components")
    name = models.CharField(max_length=40)
    kind = models.CharField(max_length=16, choices=Kind.choices)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["name"]
        constraints = [models.UniqueConstraint(fields=["project", "name"], name="component_name")]

    def __str__(self) -> str:
        return self.name


class Cell(models.Model):
    """One project in one environment: the unit of isolation.

    ``number``, ``gateway_identity``, ``rule`` and the gateway's addresses are allocated once.
    """

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="cells")
    environment = models.ForeignKey(Environment, on_delete=models.PROTECT, related_name="cells")
    number = models.BigIntegerField(unique=True)
    gateway_identity = models.BigIntegerField(unique=True)
    rule = models.BigIntegerField(unique=True)
    #: Index into the platform's ranges, see dataplane.addresses.
    gateway_index = models.IntegerField(unique=True)
    #: Raised by every change of configuration; a release remembers the one that it was made from.
    config_version = models.PositiveIntegerField(default=0)
    serving_release = models.ForeignKey(
        "delivery.Release", null=True, on_delete=models.PROTECT, related_name="+"
    )
    #: Wanted replicas, component name → number; a component that isn't in it has its release's default.
    scale = models.JSONField(default=dict)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["project", "environment"], name="one_cell")]

    def __str__(self) -> str:
        return f"{self.project}/{self.environment}"


class Workload(models.Model):
    """A component in a cell: what kernel identity and service address belong to."""

    cell = models.ForeignKey(Cell, on_delete=models.CASCADE, related_name="workloads")
    component = models.ForeignKey(Component, on_delete=models.CASCADE, related_name="workloads")
    identity = models.BigIntegerField(unique=True)
    service_index = models.IntegerField(unique=True)
    #: Port of the north gateway's door to the public hosts that it declares; given with the first one.
    door_port = models.IntegerField(unique=True, null=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["cell", "component"], name="one_workload")]

    def __str__(self) -> str:
        return self.component.name


class Endpoint(models.Model):
    """A port of a workload, with the rule number that its declaration carries."""

    workload = models.ForeignKey(Workload, on_delete=models.CASCADE, related_name="endpoints")
    name = models.CharField(max_length=40)
    rule = models.BigIntegerField(unique=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["workload", "name"], name="endpoint_name")]


class Connection(models.Model):
    """A declared edge of a workload, with its rule number and its gateway listener's port.

    ``key`` is what it was declared as: ``project/component.endpoint`` or ``external:…``. Listeners of
    a tenant's connections are on gateways of its own cells, so their ports are counted for each tenant.
    """

    workload = models.ForeignKey(Workload, on_delete=models.CASCADE, related_name="connections")
    key = models.CharField(max_length=300)
    rule = models.BigIntegerField(unique=True)
    listener_port = models.IntegerField()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["workload", "key"], name="connection_key"),
        ]


class Host(models.Model):
    """A claimed host name. Unique over all tenants; belongs to a cell.

    ``endpoint`` is where it leads. None: a release that doesn't serve yet has reserved it.
    """

    name = models.CharField(max_length=253, unique=True)
    cell = models.ForeignKey(Cell, on_delete=models.CASCADE, related_name="hosts")
    endpoint = models.ForeignKey(Endpoint, null=True, on_delete=models.CASCADE, related_name="hosts")


class ConfigVariable(models.Model):
    """A variable of a cell, for all components or for one. Values are encrypted, secret or not."""

    cell = models.ForeignKey(Cell, on_delete=models.CASCADE, related_name="variables")
    component = models.ForeignKey(Component, null=True, on_delete=models.CASCADE, related_name="variables")
    name = models.CharField(max_length=80)
    sealed = models.BinaryField()
    is_secret = models.BooleanField(default=False)
    changed_at = models.DateTimeField(auto_now=True)
    changed_by = models.CharField(max_length=254)

    class Meta:
        ordering = ["name"]
        constraints = [
            models.UniqueConstraint(
                fields=["cell", "name"], condition=Q(component=None), name="variable_of_cell"
            ),
            models.UniqueConstraint(
                fields=["cell", "component", "name"],
                condition=Q(component__isnull=False),
                name="variable_of_component",
            ),
        ]
