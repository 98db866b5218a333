"""How replicas on a cluster are: read from its API, taken in like what a node reports.

Nobody's lease: it changes nothing there. Whoever moves ``look_at`` first has the turn, so that tasks
that were queued twice don't ask twice.
"""

from __future__ import annotations

import logging
from datetime import timedelta

from django.utils import timezone

from cells.provisioning import work
from cells.provisioning.models import Place
from dataplane.drivers import DriverError
from dataplane.planes.kubernetes import driver_of
from delivery import actions as delivery
from delivery.models import Deployment, Replica, Run

log = logging.getLogger("cytoplane.provisioning")
#: Between two looks: while a deployment waits for replicas, while some aren't well, and otherwise.
UNDERWAY, UNWELL, QUIET = timedelta(seconds=0.5), timedelta(seconds=5), timedelta(seconds=15)
#: Somebody may wait for a run; one that has gone on for longer than this is looked at like what isn't well.
SHORT_RUN = timedelta(seconds=60)


def due() -> list[int]:
    """Places with something to see whose time has come, those that wait longest first.

    Those of a plane that dials in report themselves.
    """
    time = work.come("look_at", timezone.now())
    rows = Place.objects.filter(time, wanted=True, plane__kubeconfig__isnull=False)
    rows = rows.filter(cell__workloads__replicas__isnull=False).order_by("look_at").distinct()
    return list(rows.values_list("pk", flat=True))


def look(place_id: int) -> bool:
    """Read the states once, if it is time; whether a deployment waits for the next look."""
    now = timezone.now()
    turn = Place.objects.filter(work.come("look_at", now), pk=place_id, wanted=True)
    if not turn.update(look_at=now + UNWELL):
        return False
    place = Place.objects.select_related("plane__owner", "cell__project__tenant__plan").get(pk=place_id)
    if place.cell is None or not place.plane.direct:
        return False
    mine = Replica.objects.filter(workload__cell=place.cell, plane=place.plane)
    before = {f"r{pk}": phase for pk, phase in mine.values_list("pk", "phase")}
    if not before:
        return False
    try:
        reports = driver_of(place.plane).reports(work.placed(place), before)
    except DriverError as error:
        # The place's own look says so to admins; deployments wait.
        log.warning("%s can't be looked at: %s", place.location, error)
        return False
    delivery.record_replica_reports(place.plane, reports)
    waits = Deployment.objects.filter(cell=place.cell, state=Deployment.State.STARTING).exists()
    runs = Run.objects.filter(workload__cell=place.cell, state__in=Run.ACTIVE)
    waits = waits or runs.filter(created_at__gt=now - SHORT_RUN).exists()
    running = runs.exists()
    if running:
        # By that a run's end that wasn't told is known from one that nobody could tell.
        Place.objects.filter(pk=place_id).update(seen_at=now)
    well = not running and all(
        phase == Replica.Phase.HEALTHY for phase in mine.values_list("phase", flat=True)
    )
    pause = UNDERWAY if waits else QUIET if well else UNWELL
    # A change in between wants an earlier one.
    Place.objects.filter(pk=place_id, look_at=now + UNWELL).update(look_at=timezone.now() + pause)
    return waits
