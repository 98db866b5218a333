"""Cells by the thousand in an installation's own database: made in bulk, with nothing that runs in them.

What they declare is the kernel's alone: no public host, and what other cells call is TCP.

Their numbers come from the upper end of each range, where allocation never gets to, and are free again
afterwards: no sequence moves.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dataplane import addresses
from infra.config import Config

#: Projects of a tenant; every second one calls another of them.
TENANT = 10
SLUG, EMAIL = "bench-cells-", "bench-cells@cytoplane.localhost"
_FIRST_CELL = 2**30


@dataclass
class Made:
    """A cell to change, and the identities whose edge its strictness closes."""

    project: Any
    consumer: int
    provider: int


def django(config: Config) -> None:
    """Work in this process as the installation's control plane does."""
    os.environ["CYTOPLANE_HOME"] = str(config.home)
    # The cluster takes root for its own user.
    os.environ.setdefault("CYTOPLANE_DATABASE_USER", "postgres")
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "controlplane.settings")
    sys.path.insert(0, str(Path(__file__).parents[2] / "platform"))
    import django as framework

    framework.setup()


def _text(number: int) -> str:
    other = number - number % TENANT + (number + 3) % TENANT
    call = f", {{to: p{other}/api, as: OTHER}}" if number % 2 else ""
    return f"""
components:
  web:
    kind: web
    command: serve
    connections: [{{to: api}}{call}]
    endpoints: {{http: 8080}}
  api:
    kind: service
    command: serve
    endpoints: {{rpc: {{port: 9000, protocol: tcp, visibility: tenant}}}}
  store:
    kind: service
    command: serve
    endpoints: {{sql: {{port: 5432, protocol: tcp}}}}
"""


@contextmanager
def cells(number: int) -> Iterator[list[Made]]:
    """So many cells on the shared machine plane; gone afterwards."""
    remove()
    try:
        yield _create(number)
    finally:
        remove()


def _create(number: int) -> list[Made]:
    from django.db import transaction

    from cells.specification import parse
    from dataplane.planes import actions as planes
    from dataplane.planes.models import Plane
    from delivery.models import Release
    from projects.models import Cell, Component, Connection, Endpoint, Environment, Project, Workload
    from tenants.models import Membership, Plan, Tenant, User

    plane = Plane.objects.get(name="shared")
    plan = Plan.objects.get(name="standard")
    with transaction.atomic():
        user = User.objects.create_user(EMAIL, None)
        count = (number + TENANT - 1) // TENANT
        tenants = Tenant.objects.bulk_create(
            Tenant(slug=f"{SLUG}{n}", name="", plan=plan) for n in range(count)
        )
        Membership.objects.bulk_create(Membership(tenant=t, user=user, role="owner") for t in tenants)
        environments = Environment.objects.bulk_create(
            Environment(tenant=t, name="production", position=0, branch="main", plane=plane) for t in tenants
        )
        projects = Project.objects.bulk_create(
            Project(tenant=tenants[n // TENANT], slug=f"p{n}") for n in range(number)
        )
        rows = Cell.objects.bulk_create(
            Cell(
                project=project,
                environment=environments[n // TENANT],
                number=_FIRST_CELL + n,
                gateway_identity=2**31 - 1 - n,
                rule=2**30 + 20 * n,
                gateway_index=addresses.CELL_GATEWAYS - 1 - n,
            )
            for n, project in enumerate(projects)
        )
        parsed = [
            parse({"cytoplane.yaml": _text(n)}, project=f"p{n}", detected={".": "dockerfile"})
            for n in range(number)
        ]
        releases = Release.objects.bulk_create(
            Release(
                cell=cell, number=1, commit="0" * 40, specification=declared.as_dict(),
                images=dict.fromkeys(declared.components, "none"), configuration=b"", config_version=0,
                created_by=EMAIL,
            )
            for cell, declared in zip(rows, parsed, strict=True)
        )  # fmt: skip
        for cell, release in zip(rows, releases, strict=True):
            cell.serving_release = release
        Cell.objects.bulk_update(rows, ["serving_release"])
        names = ("web", "api", "store")
        components = Component.objects.bulk_create(
            Component(project=project, name=name, kind=parsed[0].components[name].kind)
            for project in projects
            for name in names
        )
        workloads = Workload.objects.bulk_create(
            Workload(
                cell=rows[n // 3], component=component, identity=2**31 - 10_000 - n, service_index=65_000 - n
            )
            for n, component in enumerate(components)
        )
        Endpoint.objects.bulk_create(
            Endpoint(workload=w, name=name, rule=2**30 + 20 * (n // 3) + n % 3 + 1)
            for n, w in enumerate(workloads)
            for name in parsed[n // 3].components[names[n % 3]].endpoints
        )
        Connection.objects.bulk_create(
            Connection(
                workload=workloads[3 * n], key=connection.key, rule=2**30 + 20 * n + 10 + place,
                listener_port=60_001 + (2 * (n % TENANT)) + place,
            )
            for n, declared in enumerate(parsed)
            for place, connection in enumerate(declared.components["web"].connections)
        )  # fmt: skip
        planes.touch(plane, [cell.number for cell in rows])
    return [
        Made(projects[n], workloads[3 * n].identity, workloads[3 * n + 2].identity) for n in range(number)
    ]


def remove() -> None:
    """What a measurement made, or one that was killed."""
    from django.db import transaction

    from dataplane.planes import actions as planes
    from dataplane.planes.models import Plane
    from delivery.models import Release
    from projects.models import Cell, Environment, Project
    from tenants.models import AuditEvent, Tenant, User

    with transaction.atomic():
        own = Tenant.objects.filter(slug__startswith=SLUG)
        rows = Cell.objects.filter(project__tenant__in=own)
        numbers = list(rows.values_list("number", flat=True))
        if numbers:
            planes.touch(Plane.objects.get(name="shared"), numbers)
        rows.update(serving_release=None)
        Release.objects.filter(cell__in=rows).delete()
        Project.objects.filter(tenant__in=own).delete()
        Environment.objects.filter(tenant__in=own).delete()
        AuditEvent.objects.filter(tenant__in=own).delete()
        own.delete()
        User.objects.filter(email=EMAIL).delete()
