"""Runs of components of kind cron, when it is time: one for each time, whoever looks at the clock.

Times that passed while nobody looked are made up for by one run of the last of them.
"""

from __future__ import annotations

import logging
from datetime import datetime, timedelta

from django.db import IntegrityError, transaction
from django.db.models import Exists, OuterRef, Q, QuerySet
from django.utils import timezone

from cells.specification import Specification, tasks
from cells.specification.model import Task
from controlplane.errors import CytoplaneError
from delivery import runs
from delivery.models import Release, Run, Schedule
from delivery.serving import locked_cell
from projects.models import Cell, Workload

log = logging.getLogger("cytoplane.delivery")
#: As the audit log and runs call it.
WHO = "schedule"
#: So long another try is looked for after a failure; there may be no room for it at once.
LATELY = timedelta(minutes=10)
#: Clocks of several workers are never farther apart.
APART = timedelta(minutes=1)


def follow(cell: Cell, release: Release) -> None:
    """The release's schedules are in force from now on. Call when it begins to serve."""
    declared = Specification.from_dict(release.specification).components
    crons = {name: c.task.schedule for name, c in declared.items() if c.task and c.task.schedule}
    Schedule.objects.filter(workload__cell=cell).exclude(workload__component__name__in=crons).delete()
    for workload in Workload.objects.filter(cell=cell, component__name__in=crons).select_related("component"):
        expression = crons[workload.component.name]
        known = Schedule.objects.filter(workload=workload).first()
        if known is None or known.expression != expression:
            now = timezone.now()
            # A time that has come and that nobody has looked at yet is still its.
            missed = known is not None and known.next_at <= now
            next_at = known.next_at if missed else tasks.following(expression, now)
            values = {"expression": expression, "next_at": next_at, "set_at": now}
            Schedule.objects.update_or_create(workload=workload, defaults=values)


def due() -> list[int]:
    """Schedules whose time has come, and those for which the clock was wrong when that was worked out."""
    now = timezone.now()
    rows = Schedule.objects.filter(Q(next_at__lte=now) | Q(set_at__gt=now + APART))
    return list(rows.values_list("pk", flat=True))


@transaction.atomic
def strike(schedule_id: int) -> Run | None:
    """The run of a schedule's last time; None if it isn't time, or somebody else was there first."""
    row = Schedule.objects.select_for_update(skip_locked=True).filter(pk=schedule_id).first()
    now = timezone.now()
    if row is None:
        return None
    when = row.next_at
    if when > now and (row.set_at is None or row.set_at <= now + APART):
        return None
    row.next_at, row.set_at = tasks.following(row.expression, now), now
    row.save(update_fields=["next_at", "set_at"])
    if when > now:
        return None  # what it missed in that time isn't made up for: nobody knows which
    when = max(tasks.latest(row.expression, now), when)
    workload = Workload.objects.select_related("component").get(pk=row.workload_id)
    cell, name = locked_cell(workload.cell_id), workload.component.name
    if cell.serving_release is None:
        return None
    declared = Specification.from_dict(cell.serving_release.specification).components.get(name)
    if declared is None or declared.task is None:
        return None
    return _begin(cell, cell.serving_release, name, declared.task, when)


def _begin(cell: Cell, release: Release, name: str, task: Task, when: datetime) -> Run | None:
    """A run for a time of the schedule. What can't be now isn't made up for later: it is skipped, and says so."""
    try:
        with transaction.atomic():
            _suspended(cell)
            others = _going(cell, name)
            for other in list(others) if task.concurrency == "replace" else ():
                runs.stop(other, "It was time for the next one.")
            if task.concurrency == "forbid" and (other := others.first()) is not None:
                raise _Skipped(f"Run {other.pk} still went on.")
            return runs.begin(cell, release, name, kind=Run.Kind.CRON, created_by=WHO, scheduled_for=when)
    except IntegrityError:
        return None  # there is one already
    except _Skipped as skipped:
        reason = str(skipped)
    except CytoplaneError as error:
        reason = error.message
    return _skipped(cell, release, name, task, when, reason)


def _going(cell: Cell, name: str) -> QuerySet[Run]:
    """Runs of its schedule that go on."""
    return runs.active(cell).filter(workload__component__name=name, kind=Run.Kind.CRON)


class _Skipped(Exception):
    """It is time, and it mustn't begin."""


def _suspended(cell: Cell) -> None:
    tenant = cell.project.tenant
    if tenant.state == tenant.State.SUSPENDED:
        raise CytoplaneError("tenant-suspended", tenant=tenant.slug)


def _skipped(cell: Cell, release: Release, name: str, task: Task, when: datetime, reason: str) -> Run | None:
    run, made = Run.objects.get_or_create(
        workload=Workload.objects.get(cell=cell, component__name=name),
        scheduled_for=when,
        attempt=1,
        defaults={
            "release": release,
            "kind": Run.Kind.CRON,
            "state": Run.State.SKIPPED,
            "timeout": task.timeout,
            "created_by": WHO,
            "ended_at": timezone.now(),
            "reason": reason[:300],
        },
    )
    runs.forget(run.workload)
    return run if made else None


def failed() -> list[int]:
    """Runs of schedules that failed lately and were the last try of their time until now."""
    rows = Run.objects.filter(kind=Run.Kind.CRON, state__in=runs.AGAIN, ended_at__gt=timezone.now() - LATELY)
    next_one = Run.objects.filter(
        workload=OuterRef("workload"),
        scheduled_for=OuterRef("scheduled_for"),
        attempt__gt=OuterRef("attempt"),
    )
    return list(rows.exclude(Exists(next_one)).values_list("pk", flat=True))


@transaction.atomic
def again(run_id: int) -> Run | None:
    """The next try of a schedule's run that failed; None if its component has no tries left."""
    run = Run.objects.select_related("workload__component").filter(pk=run_id, state__in=runs.AGAIN).first()
    if run is None:
        return None
    cell = locked_cell(run.workload.cell_id)
    if cell.serving_release is None:
        return None
    name = run.workload.component.name
    declared = Specification.from_dict(cell.serving_release.specification).components.get(name)
    if declared is None or declared.task is None or not declared.task.schedule:
        return None
    if run.attempt > declared.task.retries:
        return None
    if declared.task.concurrency != "allow" and _going(cell, name).exists():
        return None  # of another time, which has come since: it is asked for again while it is lately
    try:
        with transaction.atomic():
            _suspended(cell)
            return runs.begin(
                cell,
                cell.serving_release,
                name,
                kind=run.kind,
                created_by=run.created_by,
                scheduled_for=run.scheduled_for,
                attempt=run.attempt + 1,
            )
    except IntegrityError:
        return None  # it is made already
    except CytoplaneError as error:
        log.warning("run %s isn't tried again now: %s", run.pk, error)
        return None
