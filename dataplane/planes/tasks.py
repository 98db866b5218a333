"""Rebuilding desired state outside requests."""

from __future__ import annotations

from cells.boundary.incremental import PLATFORM
from controlplane.celery import app
from dataplane.planes import snapshots
from dataplane.planes.models import Plane


@app.task(name="planes.rebuild")
def rebuild(plane_id: int) -> None:
    """Bring a plane's units up to date that changed."""
    snapshots.rebuild(plane_id)


@app.task(name="planes.rebuild_all")
def rebuild_all() -> None:
    """The safety net: whatever lost its wake-up is caught up with here, and some units are checked."""
    for plane_id in Plane.objects.values_list("pk", flat=True):
        # Some of what is no cell's ends by itself when its time is over.
        snapshots.rebuild(plane_id, [PLATFORM])
        snapshots.check(plane_id)
