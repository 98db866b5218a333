"""Aggregates of what the kernel saw, and workload logs."""

from __future__ import annotations

from django.db import models


class Edge(models.Model):
    """Flows between two ends in a minute, one row for each verdict and reason.

    ``source`` and ``destination`` are workload identities or reserved ones; ``remote`` is the
    address where the other end isn't the platform's or the claim can't be believed, or the name that
    was asked for in vain. ``verdict`` is the kernel's: allowed, denied, or audited, which is allowed with
    the reason that would have denied it.
    """

    cell = models.ForeignKey("projects.Cell", on_delete=models.CASCADE, related_name="edges")
    minute = models.DateTimeField()
    source = models.BigIntegerField()
    destination = models.BigIntegerField()
    remote = models.CharField(max_length=253, blank=True)
    port = models.PositiveIntegerField()
    protocol = models.PositiveSmallIntegerField()
    direction = models.PositiveSmallIntegerField()
    verdict = models.PositiveSmallIntegerField()
    reason = models.CharField(max_length=40, blank=True)
    rule = models.BigIntegerField(default=0)
    packets = models.BigIntegerField(default=0)
    bytes = models.BigIntegerField(default=0)
    last_at = models.DateTimeField()

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=[
                    "cell",
                    "minute",
                    "source",
                    "destination",
                    "remote",
                    "port",
                    "protocol",
                    "direction",
                    "verdict",
                    "reason",
                ],
                name="edge_bucket",
            )
        ]
        indexes = [models.Index(fields=["cell", "-last_at"])]


class LogLine(models.Model):
    """A line that a workload wrote, or one of the platform's own. Pruned by number for each cell."""

    cell = models.ForeignKey("projects.Cell", on_delete=models.CASCADE, related_name="log_lines")
    component = models.CharField(max_length=40)
    replica = models.BigIntegerField()
    stream = models.CharField(max_length=8)
    at = models.DateTimeField()
    text = models.TextField()

    class Meta:
        indexes = [models.Index(fields=["cell", "-id"])]


class LogMeter(models.Model):
    """How many lines of a cell were kept in a minute, the newest that any came in."""

    cell = models.OneToOneField("projects.Cell", on_delete=models.CASCADE, related_name="log_meter")
    minute = models.DateTimeField()
    lines = models.PositiveIntegerField(default=0)
