"""Looks at everything that follows load, a task for each cell. Every task may run twice and may be late."""

from __future__ import annotations

from autoscaling import actions
from autoscaling.models import Autoscaled
from controlplane.celery import app


@app.task(name="autoscaling.sweep")
def sweep() -> None:
    """Have each cell looked at that has something to look at."""
    for cell in Autoscaled.objects.order_by().values_list("workload__cell", flat=True).distinct():
        look.apply_async((cell,))


@app.task(name="autoscaling.look")
def look(cell_id: int) -> None:
    """Measure a cell's components and decide."""
    actions.look(cell_id)
