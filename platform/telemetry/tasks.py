"""Forgetting what is old."""

from __future__ import annotations

from datetime import timedelta

from django.utils import timezone

from controlplane.celery import app
from telemetry.actions import KEPT_HOURS, KEPT_LINES, KEPT_ROWS
from telemetry.models import Edge, LogLine


@app.task(name="telemetry.prune")
def prune() -> None:
    """Delete old edges, and each cell's oldest edges and lines above its share."""
    Edge.objects.filter(last_at__lt=timezone.now() - timedelta(hours=KEPT_HOURS)).delete()
    for cell in Edge.objects.values_list("cell", flat=True).distinct().order_by("cell"):
        rows = Edge.objects.filter(cell=cell).order_by("-last_at").values_list("last_at", flat=True)
        for last_at in rows[KEPT_ROWS:][:1]:
            Edge.objects.filter(cell=cell, last_at__lte=last_at).delete()
    for cell in LogLine.objects.values_list("cell", flat=True).distinct().order_by("cell"):
        last = LogLine.objects.filter(cell=cell).order_by("-id").values_list("id", flat=True)[KEPT_LINES:][:1]
        for line in last:
            LogLine.objects.filter(cell=cell, id__lte=line).delete()
