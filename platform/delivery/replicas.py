"""Which replicas a release should have, and the rows that say so."""

from __future__ import annotations

from django.utils import timezone

from cells.specification import Specification
from dataplane.planes import numbers
from delivery.models import Release, Replica
from projects.models import Cell, Workload

ACTIVE = (Replica.Wanted.RUN, Replica.Wanted.SERVE)


def wanted_numbers(cell: Cell, release: Release) -> dict[str, int]:
    """Component → replicas: what was scaled, else what the release declares."""
    specification = Specification.from_dict(release.specification)
    return {
        name: component.number(cell.scale.get(name)) for name, component in specification.components.items()
    }


def ensure(cell: Cell, release: Release) -> int:
    """Create the replicas that the release lacks; how many. They run, but don't serve yet."""
    plane = cell.environment.plane
    workloads = {w.component.name: w for w in Workload.objects.filter(cell=cell).select_related("component")}
    made = 0
    for name, number in wanted_numbers(cell, release).items():
        existing = list(
            Replica.objects.filter(workload=workloads[name], release=release, wanted__in=ACTIVE).order_by(
                "number"
            )
        )
        taken = {replica.number for replica in existing}
        for position in range(1, number + 1):
            if len(existing) >= number:
                break
            if position in taken:
                continue
            existing.append(
                Replica.objects.create(
                    workload=workloads[name],
                    release=release,
                    plane=plane,
                    number=position,
                    address_index=numbers.allocate_address(plane),
                )
            )
            made += 1
    return made


def switch(cell: Cell, release: Release) -> int:
    """Let the release's replicas serve and everybody else drain; how many drain."""
    now = timezone.now()
    rows = Replica.objects.filter(workload__cell=cell, wanted__in=ACTIVE)
    rows.filter(release=release, wanted=Replica.Wanted.RUN).update(
        wanted=Replica.Wanted.SERVE, wanted_since=now
    )
    draining = rows.exclude(release=release).update(wanted=Replica.Wanted.DRAIN, wanted_since=now)
    for name, number in wanted_numbers(cell, release).items():
        own = Replica.objects.filter(
            workload__cell=cell, workload__component__name=name, release=release, wanted=Replica.Wanted.SERVE
        )
        surplus = [replica.pk for replica in sorted(own, key=_stays)[number:]]
        draining += Replica.objects.filter(pk__in=surplus).update(
            wanted=Replica.Wanted.DRAIN, wanted_since=now
        )
    return draining


def _stays(replica: Replica) -> tuple[bool, int]:
    """Of replicas that aren't all needed those go first that aren't well, then the youngest."""
    return replica.phase != Replica.Phase.HEALTHY, replica.number


def remove(rows: list[Replica]) -> None:
    """Delete replicas; their addresses rest. The node stops what it no longer finds."""
    for replica in rows:
        numbers.free_address(replica.plane, replica.address_index)
        replica.delete()
