"""The only writers of what places should be. Workers write what they are (``work``)."""

from __future__ import annotations

from collections.abc import Iterable

from django.db import transaction
from django.db.models import F
from django.utils import timezone

from cells.provisioning.models import Place
from controlplane.errors import CytoplaneError, not_found
from dataplane.drivers import location_for
from dataplane.planes import actions as planes
from dataplane.planes.models import Plane
from delivery.models import Deployment
from projects.models import Cell, Environment
from tenants import audit
from tenants.models import Tenant
from tenants.policy import Actor, authorise


def settle(cell: Cell) -> None:
    """Give a cell its place if its plane is one that workers drive. Call in the cell's transaction."""
    from cells.provisioning.tasks import reconcile

    plane = cell.environment.plane
    if plane is None or plane.engine != Plane.Engine.KUBERNETES:
        return
    place, made = Place.objects.get_or_create(
        cell=cell,
        plane=plane,
        wanted=True,
        defaults={
            "location": location_for(cell.number),
            "number": cell.number,
            "tenant": cell.project.tenant.slug,
            "project": cell.project.slug,
            "environment": cell.environment.name,
            "next_at": timezone.now(),
        },
    )
    if made:
        reconcile.enqueue(place.pk)


def changed(cell: Cell) -> None:
    """What runs in the cell changed: its place has to follow. Call in the transaction of the change."""
    from cells.provisioning.tasks import reconcile

    now = timezone.now()
    for pk in Place.objects.filter(cell=cell, wanted=True).values_list("pk", flat=True):
        Place.objects.filter(pk=pk).update(asked=F("asked") + 1, next_at=now, look_at=now)
        reconcile.enqueue(pk)


def leave(cells: Iterable[Cell]) -> None:
    """The cells' places have to go. Call in the transaction that takes the cells away."""
    from cells.provisioning.tasks import reconcile

    for place in Place.objects.select_for_update(of=("self",)).filter(cell__in=list(cells), wanted=True):
        place.wanted, place.state, place.attempts = False, Place.State.REMOVING, 0
        place.state_since = place.next_at = timezone.now()
        place.save(update_fields=["wanted", "state", "attempts", "state_since", "next_at"])
        reconcile.enqueue(place.pk)


@transaction.atomic
def bind_environment(*, acting_user: Actor, tenant: str, environment: str, plane: str) -> Environment:
    """Let an environment's cells be on a plane. Only while nothing is released or underway in them."""
    owner = Tenant.objects.filter(slug=tenant).first()
    if owner is None:
        raise not_found("tenant")
    if not acting_user.is_platform_admin:
        authorise(acting_user, "manage planes", owner)
    # Its plane is read afterwards: after waiting, one query would join the new row with the old plane, so none.
    row = (
        Environment.objects.select_for_update(of=("self",))
        .select_related("tenant")
        .filter(tenant=owner, name=environment)
        .first()
    )
    if row is None:
        raise not_found("environment")
    target = Plane.objects.filter(name=plane).first()
    if target is None or target.owner_id not in (None, owner.pk):
        raise not_found("plane")
    if row.plane_id == target.pk:
        return row
    cells = list(
        Cell.objects.select_for_update(of=("self",), no_key=True)
        .select_related("project__tenant")
        .filter(environment=row)
    )
    busy = Deployment.objects.filter(cell__in=cells).exclude(state__in=Deployment.ENDED)
    if any(cell.serving_release_id for cell in cells) or busy.exists():
        raise CytoplaneError(
            "conflict",
            message=f"Something is released or underway in {row.name}; cells that run can't change planes yet.",
        )
    before, row.plane = row.plane, target
    row.save(update_fields=["plane"])
    leave(cells)
    for cell in cells:
        cell.environment = row
        settle(cell)
    for touched in (before, target):
        if touched is not None:
            planes.touch(touched, [cell.number for cell in cells])
    audit.record(
        acting_user,
        "environment.bind",
        row,
        tenant=owner,
        changes={"plane": [before.name if before else None, target.name]},
    )
    return row
