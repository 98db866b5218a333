"""What is known of components whose replicas follow load: one row each, of bounded size."""

from __future__ import annotations

from django.db import models


class Autoscaled(models.Model):
    """A component of a serving release that declares a range. What happened at the last look, and why.

    ``history``: looks of the last minutes, [seconds of the epoch, number, wanted] each. ``figures``: what was
    measured, as ``Figures.as_dict`` writes it.
    """

    workload = models.OneToOneField("projects.Workload", on_delete=models.CASCADE, related_name="autoscaled")
    history = models.JSONField(default=list)
    figures = models.JSONField(default=dict)
    looked_at = models.DateTimeField(null=True)
    number = models.PositiveSmallIntegerField(default=0)
    wanted = models.PositiveSmallIntegerField(default=0)
    why = models.CharField(max_length=300, blank=True)
    #: Why there aren't as many as ``wanted``; "" if there are.
    held = models.CharField(max_length=300, blank=True)
    #: The last change that was decided here: when, and a sentence.
    changed_at = models.DateTimeField(null=True)
    change = models.CharField(max_length=300, blank=True)
