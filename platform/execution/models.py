"""Sessions: commands that people run inside running replicas. What is run and said is never a row."""

from __future__ import annotations

from django.db import models


class Session(models.Model):
    """A command in a replica, from the request to its end. The row outlives it, as a record."""

    class State(models.TextChoices):
        #: For the agent of the replica's node.
        WAITING = "waiting"
        RUNNING = "running"
        ENDED = "ended"

    cell = models.ForeignKey("projects.Cell", on_delete=models.CASCADE, related_name="sessions")
    plane = models.ForeignKey("planes.Plane", on_delete=models.CASCADE, related_name="sessions")
    #: The replica's number among all; it may be gone before the record is.
    replica = models.BigIntegerField()
    component = models.CharField(max_length=40)
    number = models.PositiveSmallIntegerField()
    #: The node that holds the replica, "" where the plane has one alone.
    node_name = models.CharField(max_length=80, blank=True)
    #: The agent that took it.
    node = models.ForeignKey("planes.Node", null=True, on_delete=models.SET_NULL, related_name="sessions")
    user = models.ForeignKey("tenants.User", on_delete=models.CASCADE, related_name="sessions")
    created_by = models.CharField(max_length=254)
    tty = models.BooleanField()
    #: First word of the command and how many there are: the others may be secrets.
    program = models.CharField(max_length=80)
    words = models.PositiveIntegerField()
    state = models.CharField(max_length=16, choices=State.choices, default=State.WAITING)
    created_at = models.DateTimeField(auto_now_add=True)
    started_at = models.DateTimeField(null=True)
    ended_at = models.DateTimeField(null=True)
    exit_code = models.IntegerField(null=True)
    #: Why it ended, where the command didn't end by itself.
    reason = models.CharField(max_length=300, blank=True)

    class Meta:
        indexes = [
            models.Index(fields=["plane"], name="session_open", condition=~models.Q(state="ended")),
            models.Index(fields=["cell", "-id"], name="session_of_cell"),
        ]

    def __str__(self) -> str:
        return f"{self.component}.{self.number}"
