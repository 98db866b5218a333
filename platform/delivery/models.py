"""Releases and how they come to serve."""

from __future__ import annotations

from django.db import models
from django.db.models import Q


class Release(models.Model):
    """Code and configuration together; immutable. Rolling back makes a new one that equals an old one.

    ``specification`` is the parsed cytoplane.yaml, ``images`` component → image reference by digest,
    ``configuration`` the sealed variables (JSON: component or "" → name → value).
    """

    cell = models.ForeignKey("projects.Cell", on_delete=models.CASCADE, related_name="releases")
    number = models.PositiveIntegerField()
    commit = models.CharField(max_length=64)
    summary = models.CharField(max_length=200, blank=True)
    specification = models.JSONField()
    images = models.JSONField()
    configuration = models.BinaryField()
    config_version = models.PositiveIntegerField()
    variable_names = models.JSONField(default=list)
    created_by = models.CharField(max_length=254)
    created_at = models.DateTimeField(auto_now_add=True)
    rolled_back_from = models.ForeignKey("self", null=True, on_delete=models.SET_NULL)
    #: The release of another environment whose code it is.
    promoted_from = models.ForeignKey("self", null=True, on_delete=models.SET_NULL, related_name="+")

    class Meta:
        ordering = ["-number"]
        constraints = [models.UniqueConstraint(fields=["cell", "number"], name="release_number")]

    def __str__(self) -> str:
        return f"v{self.number}"


class Deployment(models.Model):
    """A release on its way into a cell. The row is the workflow: tasks advance it by compare-and-set."""

    class Kind(models.TextChoices):
        PUSH = "push"
        ROLLBACK = "rollback"
        CONFIG = "config"
        SCALE = "scale"
        PROMOTION = "promotion"

    class State(models.TextChoices):
        QUEUED = "queued"
        BUILDING = "building"
        STARTING = "starting"
        SWITCHING = "switching"
        DRAINING = "draining"
        LIVE = "live"
        FAILED = "failed"
        CANCELLED = "cancelled"
        SUPERSEDED = "superseded"

    ENDED = (State.LIVE, State.FAILED, State.CANCELLED, State.SUPERSEDED)

    cell = models.ForeignKey("projects.Cell", on_delete=models.CASCADE, related_name="deployments")
    release = models.ForeignKey(Release, null=True, on_delete=models.SET_NULL, related_name="deployments")
    kind = models.CharField(max_length=16, choices=Kind.choices)
    state = models.CharField(max_length=16, choices=State.choices, default=State.QUEUED)
    commit = models.CharField(max_length=64, blank=True)
    summary = models.CharField(max_length=200, blank=True)
    created_by = models.CharField(max_length=254)
    created_at = models.DateTimeField(auto_now_add=True)
    started_at = models.DateTimeField(null=True)
    ended_at = models.DateTimeField(null=True)
    state_since = models.DateTimeField(auto_now_add=True)
    #: A task is at work until then; the reaper takes over afterwards.
    lease_until = models.DateTimeField(null=True)
    cancel_requested = models.BooleanField(default=False)
    #: Whether it waits for a plane that is offline; None: as its environment has it.
    waits = models.BooleanField(null=True)
    #: Generation that must be acknowledged before the state can be left.
    awaited_generation = models.BigIntegerField(null=True)
    error_code = models.CharField(max_length=40, blank=True)
    error = models.JSONField(default=dict)
    still_serving = models.CharField(max_length=80, blank=True)

    class Meta:
        ordering = ["-id"]
        constraints = [
            # One deployment at a time in a cell, and one that waits.
            models.UniqueConstraint(
                fields=["cell"],
                condition=Q(state__in=["building", "starting", "switching", "draining"]),
                name="one_running_deployment",
            ),
            models.UniqueConstraint(
                fields=["cell"], condition=Q(state="queued"), name="one_queued_deployment"
            ),
        ]


class DeploymentStep(models.Model):
    """A step with its duration, as the portal shows it."""

    deployment = models.ForeignKey(Deployment, on_delete=models.CASCADE, related_name="steps")
    name = models.CharField(max_length=40)
    started_at = models.DateTimeField(auto_now_add=True)
    ended_at = models.DateTimeField(null=True)
    ok = models.BooleanField(null=True)

    class Meta:
        ordering = ["id"]


class LogChunk(models.Model):
    """A part of a deployment's log, in order; the live stream is Redis, this is what stays."""

    deployment = models.ForeignKey(Deployment, on_delete=models.CASCADE, related_name="log")
    at = models.DateTimeField(auto_now_add=True)
    text = models.TextField()

    class Meta:
        ordering = ["id"]


class Push(models.Model):
    """A push of a branch. Exactly one side moves the branch: whoever claims the row."""

    class Mover(models.TextChoices):
        NOBODY = "nobody"
        CLIENT = "client"
        WORKER = "worker"

    deployment = models.OneToOneField(Deployment, on_delete=models.CASCADE, related_name="push")
    branch = models.CharField(max_length=120)
    old_commit = models.CharField(max_length=64)
    new_commit = models.CharField(max_length=64)
    #: The hook's last sign of life: it has the client's attention.
    attached_at = models.DateTimeField(null=True)
    moved_by = models.CharField(max_length=16, choices=Mover.choices, default=Mover.NOBODY)


class Build(models.Model):
    """Source on its way to images, claimed by a builder."""

    class State(models.TextChoices):
        WAITING = "waiting"
        CLAIMED = "claimed"
        DONE = "done"
        FAILED = "failed"
        CANCELLED = "cancelled"

    deployment = models.OneToOneField(Deployment, on_delete=models.CASCADE, related_name="build")
    state = models.CharField(max_length=16, choices=State.choices, default=State.WAITING)
    #: File name below the archive folder, made by the platform.
    archive = models.CharField(max_length=80)
    node = models.ForeignKey("planes.Node", null=True, on_delete=models.SET_NULL, related_name="builds")
    attempt = models.PositiveSmallIntegerField(default=0)
    heartbeat_at = models.DateTimeField(null=True)
    created_at = models.DateTimeField(auto_now_add=True)
    ended_at = models.DateTimeField(null=True)
    result = models.JSONField(default=dict)


class Replica(models.Model):
    """One running copy of a component. ``wanted`` is ours, ``phase`` is what the node reports.

    What is wanted ``once`` is a run's: it never serves, is started at most once and ends by itself.
    """

    class Wanted(models.TextChoices):
        RUN = "run"
        SERVE = "serve"
        DRAIN = "drain"
        STOP = "stop"
        ONCE = "once"

    class Phase(models.TextChoices):
        PENDING = "pending"
        STARTING = "starting"
        HEALTHY = "healthy"
        UNHEALTHY = "unhealthy"
        FAILED = "failed"
        STOPPED = "stopped"
        #: Of what is wanted once: it ended by itself; it did, or didn't, and nobody can say how.
        ENDED = "ended"
        LOST = "lost"

    workload = models.ForeignKey("projects.Workload", on_delete=models.CASCADE, related_name="replicas")
    release = models.ForeignKey(Release, on_delete=models.CASCADE, related_name="replicas")
    plane = models.ForeignKey("planes.Plane", on_delete=models.PROTECT, related_name="replicas")
    number = models.PositiveSmallIntegerField()
    address_index = models.IntegerField()
    wanted = models.CharField(max_length=16, choices=Wanted.choices, default=Wanted.RUN)
    wanted_since = models.DateTimeField(auto_now_add=True)
    phase = models.CharField(max_length=16, choices=Phase.choices, default=Phase.PENDING)
    phase_since = models.DateTimeField(auto_now_add=True)
    restarts = models.PositiveIntegerField(default=0)
    #: exit code, last lines, probe, reason; as reported.
    detail = models.JSONField(default=dict)
    #: Of what is wanted once: ``run``, ``timeout`` in seconds, and whether the run has words of its own.
    once = models.JSONField(null=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["workload_id", "number"]
        constraints = [
            models.UniqueConstraint(fields=["plane", "address_index"], name="replica_address_used_once")
        ]


class Run(models.Model):
    """A component's process that runs once and ends, in a replica of its own that gets no traffic.

    ``once`` is what somebody asked for, ``cron`` what a schedule did, ``job`` a part of a deployment.
    The row outlives the replica; it ends exactly once.
    """

    class Kind(models.TextChoices):
        ONCE = "once"
        CRON = "cron"
        JOB = "job"

    class State(models.TextChoices):
        STARTING = "starting"
        RUNNING = "running"
        SUCCEEDED = "succeeded"
        FAILED = "failed"
        TIMED_OUT = "timed-out"
        CANCELLED = "cancelled"
        #: Nobody can say how it ended.
        LOST = "lost"
        #: It was time for it, and it didn't begin; ``reason`` says why.
        SKIPPED = "skipped"

    ACTIVE = (State.STARTING, State.RUNNING)

    workload = models.ForeignKey("projects.Workload", on_delete=models.CASCADE, related_name="runs")
    release = models.ForeignKey(Release, on_delete=models.CASCADE, related_name="runs")
    deployment = models.ForeignKey(Deployment, null=True, on_delete=models.SET_NULL, related_name="runs")
    kind = models.CharField(max_length=8, choices=Kind.choices)
    state = models.CharField(max_length=16, choices=State.choices, default=State.STARTING)
    #: Sealed words, until it has ended: they may hold secrets. Empty: the component's own command.
    command = models.BinaryField(default=bytes)
    #: What may be shown of the words for ever: the first, and how many there are.
    program = models.CharField(max_length=200, blank=True)
    words = models.PositiveIntegerField(default=0)
    #: Seconds from its start.
    timeout = models.PositiveIntegerField()
    #: The time of the schedule that it is for, and which try it is.
    scheduled_for = models.DateTimeField(null=True)
    attempt = models.PositiveSmallIntegerField(default=1)
    created_by = models.CharField(max_length=254)
    created_at = models.DateTimeField(auto_now_add=True)
    started_at = models.DateTimeField(null=True)
    ended_at = models.DateTimeField(null=True)
    exit_code = models.IntegerField(null=True)
    reason = models.CharField(max_length=300, blank=True)
    last_lines = models.JSONField(default=list)
    #: While there is one; ``replica_number`` is what its lines are known by afterwards.
    replica = models.OneToOneField(Replica, null=True, on_delete=models.SET_NULL, related_name="run")
    replica_number = models.BigIntegerField(null=True)

    @property
    def lines_complete(self) -> bool:
        """Whether no line of it comes any more. A machine tells of an end after the last line; on a cluster
        one part of the platform tells of the end and another one of lines, for as long as there is a replica."""
        if self.ended_at is None:
            return False
        plane = self.workload.cell.environment.plane
        return self.replica_id is None or plane is None or plane.engine == plane.Engine.MACHINE

    class Meta:
        ordering = ["-id"]
        indexes = [
            models.Index(fields=["workload", "-id"]),
            # What the clock asks for every few seconds, among all that have ended.
            models.Index(
                fields=["state"], name="run_goes_on", condition=Q(state__in=["starting", "running"])
            ),
            models.Index(
                fields=["ended_at"],
                name="run_of_a_schedule_failed",
                condition=Q(kind="cron", state__in=["failed", "timed-out"]),
            ),
        ]
        constraints = [
            # Two who look at the clock at once make one run.
            models.UniqueConstraint(
                fields=["workload", "scheduled_for", "attempt"],
                condition=Q(scheduled_for__isnull=False),
                name="run_scheduled_once",
            ),
            models.UniqueConstraint(
                fields=["deployment", "workload", "attempt"],
                condition=Q(deployment__isnull=False),
                name="job_once_in_a_deployment",
            ),
        ]


class Schedule(models.Model):
    """When a component of kind cron runs next, as the serving release declares it."""

    workload = models.OneToOneField("projects.Workload", on_delete=models.CASCADE, related_name="schedule")
    expression = models.CharField(max_length=100)
    next_at = models.DateTimeField(db_index=True)
    #: When ``next_at`` was worked out. Where that is to come, the clock has been set back since.
    set_at = models.DateTimeField(null=True)
