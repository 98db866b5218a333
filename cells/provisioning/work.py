"""One look at a place and what follows from it, by whoever holds its lease.

The lease is a compare-and-set on the row: no two workers are in one place at once. It outlives the
longest try, so nobody renews it; a worker that was killed is followed when it has run out, and the
driver goes on from what is there. Results are written only by the holder.
"""

from __future__ import annotations

import logging
import secrets
from datetime import datetime, timedelta

from django.db.models import Q
from django.utils import timezone

from cells.provisioning.models import Place
from dataplane.drivers import CellState, CellStatus, Driver, DriverError, PlacedCell, Quota
from dataplane.planes import pods, running, snapshots
from dataplane.planes.kubernetes import driver_of
from tenants.models import Plan

log = logging.getLogger("cytoplane.provisioning")
#: Longer than a look and what follows from it: two calls of a driver (``budget.CALL`` each and a bit).
LEASE = timedelta(seconds=180)
#: How often what is ready is looked at.
CHECK = timedelta(minutes=2)
#: Until a namespace that is going away is looked at again.
GOING = timedelta(seconds=5)
#: Until a place that is none of the workers' is looked at again.
REST = timedelta(minutes=5)
FIRST_RETRY, LAST_RETRY = timedelta(seconds=5), timedelta(minutes=5)
#: Nothing is put off for longer.
FARTHEST = timedelta(minutes=10)
#: A cell that is going gets a quota only because every cell has one.
_SOME = Quota(1, 1, 1)


class Broken(DriverError):
    """The platform's own fault."""

    code = "internal"
    passing = True


def free(now: datetime) -> Q:
    """Places that nobody works on."""
    return Q(lease_until=None) | come("lease_until", now)


def come(field: str, now: datetime) -> Q:
    """Whether a time has come. One that is too far off was written by a clock that has been set back since."""
    return Q(**{f"{field}__lte": now}) | Q(**{f"{field}__gt": now + FARTHEST})


def claim(place_id: int) -> Place | None:
    """The place, now this worker's; None if another one has it or it is gone."""
    now, token = timezone.now(), secrets.token_hex(16)
    if not Place.objects.filter(free(now), pk=place_id).update(lease=token, lease_until=now + LEASE):
        return None
    return (
        Place.objects.select_related("plane__owner", "cell__project__tenant__plan")
        .filter(lease=token)
        .first()
    )


def reconcile(place_id: int) -> bool:
    """Bring a place to what it should be; whether it has to be looked at again at once."""
    place = claim(place_id)
    if place is None:
        return False
    try:
        # Desired state first: a node refuses a pod that it hasn't heard of.
        snapshots.rebuild(place.plane_id)
        if not place.plane.direct:
            # Its own controller makes the place and says how it is (``reports``).
            return _leave(place, next_at=timezone.now() + REST)
        driver, cell = driver_of(place.plane), placed(place)
        status = _ensure(place, driver, cell) if place.wanted else driver.remove(cell)
    except DriverError as error:
        return _failed(place, error)
    except Exception:
        # Whatever it was may pass; the place must neither be lost nor held until the lease runs out.
        log.exception("%s can't go on", place.location)
        return _failed(place, Broken("Something failed on the platform's side; the worker's log has it."))
    return _settled(place, status)


def _settled(place: Place, status: CellStatus) -> bool:
    if status.state == CellState.ABSENT and not place.wanted:
        Place.objects.filter(pk=place.pk, lease=place.lease, wanted=False).delete()
        return False
    return _done(place, status)


def _ensure(place: Place, driver: Driver, cell: PlacedCell) -> CellStatus:
    if place.asked != place.followed:
        return driver.ensure(cell)
    seen = driver.status(cell)
    if seen.state == CellState.READY:
        return seen
    if seen.state == CellState.DRIFTED:
        log.warning("%s drifted: %s", place.location, " ".join(seen.problems))
        _write(place, state=Place.State.DRIFTED, problems=list(seen.problems), revision=seen.revision)
    return driver.ensure(cell)


def placed(place: Place) -> PlacedCell:
    """The place as drivers know it, with the quota of its tenant's plan and what runs."""
    plan = place.cell.project.tenant.plan if place.cell else None
    return PlacedCell(
        number=place.number,
        location=place.location,
        tenant=place.tenant,
        project=place.project,
        environment=place.environment,
        quota=quota(plan) if plan else _SOME,
        endpoints=running.of_cell(place.plane, place.number) if place.wanted else (),
        pull=pods.token(place.location) if place.wanted else "",
    )


def quota(plan: Plan) -> Quota:
    """Twice the plan: while a deployment goes on, old and new replicas are there together."""
    return Quota(
        replicas=max(1, 2 * plan.replicas),
        cpu=max(1, round(2000 * plan.cpu)),
        memory=max(1, 2 * plan.memory_mib),
    )


_STATES = {
    CellState.READY: Place.State.READY,
    CellState.DRIFTED: Place.State.DRIFTED,
    CellState.REMOVING: Place.State.REMOVING,
}


def _done(place: Place, status: CellStatus) -> bool:
    state = _STATES.get(status.state, Place.State.PENDING)
    ready = state == Place.State.READY
    return _leave(
        place,
        state=state,
        problems=list(status.problems),
        error_code="",
        revision=status.revision or place.revision,
        attempts=0,
        followed=place.asked if ready else place.followed,
        next_at=timezone.now() + (CHECK if ready else GOING),
        checked_at=timezone.now(),
    )


def _failed(place: Place, error: DriverError) -> bool:
    log.warning("%s: %s", place.location, error)
    wait = min(FIRST_RETRY * 2 ** min(place.attempts, 8), LAST_RETRY) if error.passing else LAST_RETRY
    return _leave(
        place,
        state=Place.State.FAILED if place.wanted else Place.State.REMOVING,
        problems=[str(error)],
        error_code=error.code,
        attempts=place.attempts + 1,
        next_at=timezone.now() + wait,
        checked_at=timezone.now(),
    )


def _write(place: Place, **fields: object) -> bool:
    if "state" in fields and fields["state"] != place.state:
        fields["state_since"] = timezone.now()
    return bool(Place.objects.filter(pk=place.pk, lease=place.lease, wanted=place.wanted).update(**fields))


def _leave(place: Place, **fields: object) -> bool:
    """Write the result and give the lease back; True if meanwhile something else was asked of the place."""
    if _write(place, lease="", lease_until=None, **fields):
        # What was asked after the place was read would otherwise wait for the next look.
        again = Place.objects.filter(pk=place.pk, asked__gt=place.asked)
        return bool(again.update(next_at=timezone.now()))
    return bool(Place.objects.filter(pk=place.pk, lease=place.lease).update(lease="", lease_until=None))
