"""What workers do for places. Every task may run twice and may be late."""

from __future__ import annotations

from django.utils import timezone

from cells.provisioning import states, work
from cells.provisioning.models import Place
from controlplane.celery import app


@app.task(name="provisioning.reconcile")
def reconcile(place_id: int) -> None:
    """Bring a place to what it should be."""
    if work.reconcile(place_id):
        reconcile.enqueue(place_id)
    look.enqueue(place_id)


@app.task(name="provisioning.look")
def look(place_id: int) -> None:
    """Read how the place's replicas are; again in a moment as long as a deployment waits for them."""
    if states.look(place_id):
        look.enqueue(place_id, countdown=states.UNDERWAY.total_seconds())


@app.task(name="provisioning.sweep")
def sweep() -> None:
    """Look at every place whose time has come and that nobody works on."""
    now = timezone.now()
    # Those that wait longest: where more are due than one sweep takes, nobody's turn never comes.
    due = Place.objects.filter(work.free(now), work.come("next_at", now)).order_by("next_at")
    for pk in due.values_list("pk", flat=True)[:200]:
        reconcile.enqueue(pk)
    for pk in states.due()[:200]:
        look.enqueue(pk)
