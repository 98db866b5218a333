"""A cell's place on a Kubernetes plane, as it should be and as it was seen last."""

from __future__ import annotations

from django.db import models
from django.db.models import Q
from django.utils import timezone


class Place(models.Model):
    """The row is the workflow, and outlives its cell until nothing is left of it on the plane.

    Names and numbers are copies: what is removed may have no cell any more. A row that isn't wanted
    and isn't there is deleted.
    """

    class State(models.TextChoices):
        #: Waits for a worker.
        PENDING = "pending"
        READY = "ready"
        #: Something on the plane isn't as it was made; the worker that saw it repairs it.
        DRIFTED = "drifted"
        #: The last try failed; ``problems`` says why, ``next_at`` when the next one is.
        FAILED = "failed"
        REMOVING = "removing"

    plane = models.ForeignKey("planes.Plane", on_delete=models.PROTECT, related_name="places")
    cell = models.ForeignKey("projects.Cell", null=True, on_delete=models.SET_NULL, related_name="places")
    #: Name of the namespace; made once.
    location = models.CharField(max_length=40, unique=True)
    number = models.BigIntegerField()
    tenant = models.CharField(max_length=40)
    project = models.CharField(max_length=40)
    environment = models.CharField(max_length=40)
    #: False: it has to go.
    wanted = models.BooleanField(default=True)
    state = models.CharField(max_length=16, choices=State.choices, default=State.PENDING)
    state_since = models.DateTimeField(auto_now_add=True)
    #: Sentences about what is wrong, for platform admins.
    problems = models.JSONField(default=list)
    error_code = models.CharField(max_length=40, blank=True)
    #: How often it was installed or upgraded.
    revision = models.PositiveIntegerField(default=0)
    #: Failed tries in a row.
    attempts = models.PositiveIntegerField(default=0)
    #: Counts what was asked of it: changes of what runs in its cell. A worker that read an older number
    #: than it leaves behind looks again.
    asked = models.PositiveBigIntegerField(default=0)
    #: What was asked when it was brought about last: what is newer is a change, not drift.
    followed = models.PositiveBigIntegerField(default=0)
    #: When the replicas' state is read from the cluster again.
    look_at = models.DateTimeField(default=timezone.now)
    #: When it was read last while runs went on there.
    seen_at = models.DateTimeField(null=True)
    #: When it has to be looked at again.
    next_at = models.DateTimeField()
    #: Who works on it, and until when nobody else may.
    lease = models.CharField(max_length=32, blank=True)
    lease_until = models.DateTimeField(null=True)
    checked_at = models.DateTimeField(null=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["cell", "plane"],
                condition=Q(wanted=True, cell__isnull=False),
                name="one_wanted_place",
            )
        ]
        indexes = [models.Index(fields=["next_at"]), models.Index(fields=["look_at"])]

    def __str__(self) -> str:
        return self.location
