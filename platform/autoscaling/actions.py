"""The only writers of what is known of autoscaled components. Changes of numbers are delivery's.

A look is one transaction on the locked cell, so that it sees no half of a deployment and none begins beside it.
"""

from __future__ import annotations

from datetime import timedelta

from django.db import transaction
from django.utils import timezone

from autoscaling import load
from autoscaling.decision import Decision, Load, Look, decide, mean, remembered
from autoscaling.models import Autoscaled
from cells.specification import Component, Specification
from controlplane.errors import CytoplaneError
from delivery import actions as delivery
from delivery.models import Deployment, Release, Replica
from projects.models import Cell, Workload
from tenants.models import Tenant

#: Looks that come sooner after another are one too many, as when a task runs twice.
LEAST_SECONDS = 5.0
#: After an attempt that failed nothing is tried for so long.
AFTER_FAILURE = timedelta(minutes=5)


def follow(cell: Cell, release: Release) -> None:
    """The release serves from here on: its ranges count, and no others."""
    specification = Specification.from_dict(release.specification)
    names = {name for name, component in specification.components.items() if component.scaling}
    Autoscaled.objects.filter(workload__cell=cell).exclude(workload__component__name__in=names).delete()
    if names:
        workloads = Workload.objects.filter(cell=cell, component__name__in=names)
        Autoscaled.objects.bulk_create(
            [Autoscaled(workload=workload) for workload in workloads], ignore_conflicts=True
        )


def let_go(cell: Cell, specification: Specification) -> None:
    """Numbers that load asked for mean nothing where a specification says one itself. With the cell locked."""
    if not cell.scale:
        return
    rows = Autoscaled.objects.filter(workload__cell=cell)
    gone = {
        name
        for name in rows.values_list("workload__component__name", flat=True)
        if name in specification.components and specification.components[name].scaling is None
    }
    if gone & cell.scale.keys():
        cell.scale = {name: number for name, number in cell.scale.items() if name not in gone}
        cell.save(update_fields=["scale"])


@transaction.atomic
def look(cell_id: int) -> Deployment | None:
    """Measure the cell's components, remember it, and have their numbers changed where that is due."""
    cell = (
        Cell.objects.select_for_update(skip_locked=True, of=("self",), no_key=True)
        .select_related("project__tenant", "environment__plane", "serving_release")
        .filter(pk=cell_id)
        .first()
    )
    # Somebody works on it: the next look isn't far.
    if cell is None or cell.serving_release is None:
        return None
    if cell.project.tenant.state == Tenant.State.SUSPENDED:
        return None
    rows = Autoscaled.objects.filter(workload__cell=cell).select_related("workload__component")
    components = Specification.from_dict(cell.serving_release.specification).components
    now = timezone.now()
    underway = cell.deployments.exclude(state__in=Deployment.ENDED).exists()
    pause = "a deployment is under way" if underway else _failure(cell)
    changes: dict[str, tuple[Autoscaled, Decision]] = {}
    for row in rows.order_by("pk"):
        name = row.workload.component.name
        component = components.get(name)
        if component is None or component.scaling is None:
            continue
        # A look that is to come was before the clock was set back.
        if row.looked_at and timedelta(0) <= now - row.looked_at < timedelta(seconds=LEAST_SECONDS):
            continue
        decision = _measured(row, component, cell.serving_release)
        if not underway:
            _settle(cell, name, component, row.number)
        if decision.number != row.number and not pause:
            changes[name] = (row, decision)
        elif decision.number != row.number:
            row.held = pause
        row.looked_at = now
        row.save()
    if pause or not changes:
        return None
    return _carry_out(cell, changes)


def _failure(cell: Cell) -> str:
    """What the last change from here failed of, or that somebody cancelled it, for a while; "" if it didn't."""
    last = cell.deployments.filter(kind=Deployment.Kind.SCALE).order_by("-pk").first()
    ended = (Deployment.State.FAILED, Deployment.State.CANCELLED)
    if last is None or last.state not in ended or last.created_by != delivery.AUTOSCALING:
        return ""
    if last.ended_at is None or not timedelta(0) <= timezone.now() - last.ended_at <= AFTER_FAILURE:
        return ""
    return f"the last attempt came to nothing: {last.error.get('message', '')}"[:300]


def _measured(row: Autoscaled, component: Component, release: Release) -> Decision:
    """What the load of this moment asks for; the row remembers it. Doesn't save."""
    assert component.scaling is not None
    replicas = dict(
        Replica.objects.filter(
            workload=row.workload_id, release=release, wanted=Replica.Wanted.SERVE
        ).values_list("pk", "phase")
    )
    # A replica that isn't well does other things than its work.
    well = [pk for pk, phase in replicas.items() if phase == Replica.Phase.HEALTHY]
    known = load.of(well)
    figures = [known.get(pk, load.Figures()) for pk in replicas]
    limit = component.limits.cpu
    seen = Load(
        cpu=tuple(None if f.cpu is None else min(100.0, 100 * f.cpu / limit) for f in figures),
        requests=tuple(f.requests for f in figures),
    )
    at = timezone.now().timestamp()
    history = [Look(*entry) for entry in row.history]
    decision = decide(component.scaling, seen, history, at)
    now = Look(at, len(replicas), decision.wanted)
    row.history = [[each.at, each.number, each.wanted] for each in remembered(history, now)]
    row.figures = {
        "cpu": _rounded(mean(seen.cpu)) if component.scaling.cpu else None,
        "requests": _rounded(mean(seen.requests)) if component.scaling.requests else None,
    }
    row.number, row.wanted = len(replicas), decision.wanted
    row.why, row.held = decision.why[:300], decision.held[:300]
    return decision


def _settle(cell: Cell, name: str, component: Component, number: int) -> None:
    """What a deployment that failed left behind mustn't make the next one start more than there are."""
    if number and component.number(cell.scale.get(name)) != number:
        cell.scale = {**cell.scale, name: number}
        cell.save(update_fields=["scale"])


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 2)


def _carry_out(cell: Cell, changes: dict[str, tuple[Autoscaled, Decision]]) -> Deployment | None:
    """One deployment for all that fits into the plan; the rest is held, with the sentence."""
    numbers: dict[str, int] = {}
    for name, (row, decision) in sorted(changes.items()):
        number, refused = _fitting(cell, numbers, name, row.number, decision.number)
        if refused:
            row.held = refused[:300]
        if number != row.number:
            numbers[name] = number
            row.change = f"{row.number} to {number}: {decision.why}"[:300]
            row.changed_at = timezone.now()
        row.save()
    if not numbers:
        return None
    return delivery.autoscale(
        cell=cell,
        numbers=numbers,
        why={name: changes[name][0].change for name in numbers},
    )


def _fitting(cell: Cell, beside: dict[str, int], name: str, number: int, wanted: int) -> tuple[int, str]:
    """The nearest to what is wanted that the plan allows, and what it says to more."""
    refused = ""
    for attempt in range(wanted, number, -1):
        try:
            delivery.fits(cell, {**beside, name: attempt})
            return attempt, refused
        except CytoplaneError as error:
            refused = refused or error.message
    return (number, refused) if refused else (wanted, "")
