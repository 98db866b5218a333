"""Host names of public endpoints: claimed rows, unique over all tenants."""

from __future__ import annotations

from django.conf import settings
from django.db import IntegrityError, transaction

from controlplane.errors import CytoplaneError
from projects.models import Cell, Endpoint, Host

PRODUCTION = "production"


def full_name(cell: Cell, host: str) -> str:
    """``<host>.<tenant>.<domain>`` in production, ``<host>--<environment>.<tenant>.<domain>`` elsewhere."""
    environment = cell.environment.name
    first = host if environment == PRODUCTION else f"{host}--{environment}"
    return f"{first}.{cell.project.tenant.slug}.{settings.CONFIG.apps_domain}"


def claim(cell: Cell, endpoint: Endpoint, host: str) -> Host:
    """Claim a host for an endpoint; `host-taken` if another project has it.

    Within a project an endpoint may take over a name: a component was renamed.
    """
    name = full_name(cell, host)
    try:
        with transaction.atomic():
            row, created = Host.objects.get_or_create(name=name, defaults={"endpoint": endpoint})
    except IntegrityError:  # somebody claimed it between the look and the insert
        row, created = Host.objects.select_related("endpoint__workload").get(name=name), False
    if not created and row.endpoint_id != endpoint.pk:
        if row.endpoint.workload.cell_id != cell.pk:
            raise CytoplaneError("host-taken", host=name)
        row.endpoint = endpoint
        row.save(update_fields=["endpoint"])
    return row
