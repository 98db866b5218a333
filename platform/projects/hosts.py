"""Host names of public endpoints: claimed rows, unique over all tenants.

A release reserves its names when it is made and gets them when it serves: until then a name leads
where it led before, or nowhere. What a release that never served reserved is given back.
"""

from __future__ import annotations

from collections.abc import Iterable

from django.conf import settings
from django.db import transaction
from django.db.models import Q

from cells.specification import Specification
from controlplane.errors import CytoplaneError
from projects.models import Cell, Endpoint, Host

PRODUCTION = "production"


def full_name(cell: Cell, host: str) -> str:
    """``<host>.<tenant>.<domain>`` in production, ``<host>--<environment>.<tenant>.<domain>`` elsewhere."""
    environment = cell.environment.name
    first = host if environment == PRODUCTION else f"{host}--{environment}"
    return f"{first}.{cell.project.tenant.slug}.{settings.CONFIG.apps_domain}"


def _declared(cell: Cell, specification: Specification) -> dict[str, tuple[str, str]]:
    """Full name → component and endpoint."""
    return {
        full_name(cell, endpoint.host): (name, key)
        for name, component in specification.components.items()
        for key, endpoint in component.endpoints.items()
        if endpoint.host
    }


def reserve(cell: Cell, specification: Specification) -> None:
    """Make the names the cell's, wherever they lead; `host-taken` if one is another cell's.

    Call with the cell's row locked: what nobody needs any more is given back under the same lock.
    """
    for name in sorted(_declared(cell, specification)):
        row, _ = Host.objects.get_or_create(name=name, defaults={"cell": cell})
        if row.cell_id != cell.pk:
            raise CytoplaneError("host-taken", host=name)


def move(cell: Cell, specification: Specification) -> None:
    """Let the names lead to the endpoints of the release that serves from now on; others lead nowhere.

    Call with the cell's row locked.
    """
    reserve(cell, specification)
    wanted = _declared(cell, specification)
    endpoints = {
        (endpoint.workload.component.name, endpoint.name): endpoint
        for endpoint in Endpoint.objects.filter(workload__cell=cell).select_related("workload__component")
    }
    for row in Host.objects.filter(cell=cell):
        endpoint = endpoints[wanted[row.name]] if row.name in wanted else None
        if row.endpoint_id != (endpoint.pk if endpoint else None):
            row.endpoint = endpoint
            row.save(update_fields=["endpoint"])


def give_back(cells: Iterable[int] | None = None) -> int:
    """Delete names that lead nowhere and that nothing under way asks for; how many.

    A cell that somebody works on is left for the next time: who has reserved a name there may not have
    committed what needs it.
    """
    from delivery.queries import underway

    idle = Host.objects.filter(endpoint=None)
    if cells is not None:
        idle = idle.filter(cell__in=cells)
    given = 0
    for number in set(idle.values_list("cell", flat=True)):
        with transaction.atomic():
            cell = (
                Cell.objects.select_for_update(skip_locked=True, of=("self",), no_key=True)
                .select_related("project__tenant", "environment")
                .filter(pk=number)
                .first()
            )
            if cell is None:
                continue
            wanted = {name for coming in underway(Q(cell=cell)) for name in _declared(cell, coming[1])}
            given += Host.objects.filter(cell=cell, endpoint=None).exclude(name__in=wanted).delete()[0]
    return given
