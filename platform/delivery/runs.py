"""A run's way: a replica that is started at most once, is watched, and goes.

``begin`` makes the row and its replica; ``advance`` takes a step on the locked row, so that a worker that
dies leaves the state before it, and no two can end a run twice. A replica outlives its run's end for a
moment, since its last lines may still be on their way.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

from django.db import transaction
from django.db.models import Exists, OuterRef, Q
from django.utils import timezone

from cells.provisioning import actions as provisioning
from cells.provisioning.models import Place
from cells.specification import Component, Specification
from controlplane.errors import CytoplaneError
from dataplane.planes import actions as planes
from dataplane.planes import numbers, presence
from dataplane.planes.models import Plane
from delivery import replicas
from delivery.models import Deployment, Release, Replica, Run
from projects import quotas
from projects.models import Cell, Workload
from tenants.keys import Box

#: Runs of a cell at once.
MOST_AT_ONCE = 5
#: Runs of a tenant that may begin while an address rests: each takes one of its plane's, which all tenants share.
MOST_BEGUN = 600
#: What passes by itself and keeps a run from beginning now.
FULL = ("runs-full", "runs-paced")
#: Until what can't be started is given up; images may be pulled in it.
START = timedelta(minutes=3)
#: A machine ends what takes too long itself, with a grace of ten seconds, and tells it after its last lines; the
#: control plane does where it doesn't. On a cluster nodes end only what nobody else has.
MARGIN = {Plane.Engine.MACHINE: timedelta(seconds=20), Plane.Engine.KUBERNETES: timedelta(seconds=5)}
#: A replica's last lines may come after its end.
LINGER = timedelta(seconds=5)
#: Ended runs of a component that are kept.
KEPT = 200
State, Phase, ENDED = Run.State, Replica.Phase, Deployment.ENDED
#: Ends after which a component's other tries are made.
AGAIN = (State.FAILED, State.TIMED_OUT)


def active(cell: Cell) -> Any:
    """Runs of a cell that go on."""
    return Run.objects.filter(workload__cell=cell, state__in=Run.ACTIVE)


def purpose(run_id: int) -> str:
    """Associated data of a run's sealed words."""
    return f"run:{run_id}"


def component_of(release: Release, name: str) -> Component:
    """A component as the release declares it. Raises ``not-found``."""
    found = Specification.from_dict(release.specification).components.get(name)
    if found is None:
        raise CytoplaneError("not-found", kind="component")
    return found


def begin(
    cell: Cell, release: Release, name: str, *, kind: str, created_by: str, words: list[str] | None = None,
    timeout: int = 0, **more: Any,
) -> Run:  # fmt: skip
    """A run on its way. Call with the cell's row locked. Raises `runs-full`, `runs-paced`, `quota`, `unavailable`."""
    plane = cell.environment.plane
    if plane is None:
        raise CytoplaneError("unavailable", part="a data plane for this environment")
    if active(cell).count() >= MOST_AT_ONCE:
        raise CytoplaneError("runs-full", cell=str(cell), limit=MOST_AT_ONCE)
    component = component_of(release, name)
    quotas.check_run(cell, component)
    tenant = cell.project.tenant
    lately = Run.objects.filter(workload__cell__project__tenant=tenant, created_at__gt=_rested())
    if lately.exclude(replica_number=None).count() >= MOST_BEGUN:
        raise CytoplaneError("runs-paced", tenant=tenant.slug, limit=MOST_BEGUN)
    workload = Workload.objects.get(cell=cell, component__name=name)
    run = Run.objects.create(
        workload=workload,
        release=release,
        kind=kind,
        created_by=created_by,
        timeout=timeout or (component.task.timeout if component.task else 3600),
        program=words[0][:200] if words else "",
        words=len(words or ()),
        **more,
    )
    if words:
        run.command = Box(cell.project.tenant_id).seal(json.dumps(words), purpose(run.pk))
    run.replica = Replica.objects.create(
        workload=workload,
        release=release,
        plane=plane,
        number=0,
        address_index=numbers.allocate_address(plane),
        wanted=Replica.Wanted.ONCE,
        once={"run": run.pk, "timeout": run.timeout, "own": bool(words)},
    )
    run.replica_number = run.replica.pk
    run.save(update_fields=["command", "replica", "replica_number"])
    _changed(cell)
    forget(workload)
    return run


def _rested() -> datetime:
    """What was freed before may be used again."""
    return timezone.now() - numbers.REST


def words_of(run: Run, tenant_id: int) -> list[str]:
    """What a run's process is called with. Call only to send it to the node that runs it."""
    return json.loads(Box(tenant_id).unseal(run.command, purpose(run.pk)))


def _changed(cell: Cell) -> None:
    planes.touch(cell.environment.plane, [cell.number])
    provisioning.changed(cell)


def forget(workload: Workload) -> None:
    """Delete what is older than what is kept of a component's ended runs; not what still counts."""
    old = Run.objects.filter(workload=workload, replica=None).exclude(state__in=Run.ACTIVE)
    # A deployment that goes on knows by the row that its job has run.
    old = old.exclude(Exists(Deployment.objects.filter(pk=OuterRef("deployment")).exclude(state__in=ENDED)))
    for pk in old.order_by("-pk").values_list("pk", flat=True)[KEPT:][:1]:
        old.filter(pk__lte=pk).exclude(replica_number__isnull=False, created_at__gt=_rested()).delete()


@transaction.atomic
def advance(run_id: int) -> str:
    """Take what steps there are; the state that was reached, "" where another worker is at it."""
    run = (
        Run.objects.select_for_update(skip_locked=True, of=("self",))
        .select_related("workload__cell__project__tenant", "workload__cell__environment__plane", "replica")
        .select_related("workload__component", "release")
        .filter(pk=run_id)
        .first()
    )
    if run is None:
        return ""
    if run.state in Run.ACTIVE:
        _look(run)
    elif run.replica is not None and (run.ended_at is None or timezone.now() - run.ended_at >= LINGER):
        take_away(run)
    return run.state


def _look(run: Run) -> None:
    now, replica = timezone.now(), run.replica
    if replica is None:
        end(run, State.LOST, "What it ran in was taken away.")
        return
    detail = replica.detail
    if run.state == State.STARTING and (replica.phase in _BEGUN or detail.get("started_at")):
        run.state = State.RUNNING
        run.started_at = _moment(detail.get("started_at"), run.created_at, now)
        run.save(update_fields=["state", "started_at"])
    if replica.phase == Phase.ENDED:
        _ended(run, detail)
    elif replica.phase == Phase.LOST:
        end(run, State.LOST, detail.get("reason") or "Its node can't say how it ended.")
    elif run.state == State.STARTING:
        if now - run.created_at > START:
            _not_started(run, detail)
    elif run.started_at:
        margin = MARGIN[Plane.Engine(replica.plane.engine)]
        _overdue(run, run.started_at + timedelta(seconds=run.timeout) + margin)


_BEGUN = (Phase.HEALTHY, Phase.UNHEALTHY, Phase.ENDED)


def _moment(reported: Any, earliest: datetime, latest: datetime) -> datetime:
    """When a node says that it began, as far as that can be."""
    if not isinstance(reported, int | float):
        return latest
    said = datetime.fromtimestamp(min(max(reported, 0), 2**33), UTC)
    return min(max(said, earliest), latest)


def _ended(run: Run, detail: dict[str, Any]) -> None:
    code = detail.get("exit_code")
    code = code if type(code) is int and 0 <= code <= 255 else None
    run.last_lines = detail.get("last_lines", [])
    if detail.get("timed_out"):
        end(run, State.TIMED_OUT, _too_long(run), code)
    elif code is None:
        end(run, State.FAILED, detail.get("reason") or "It ended, and its node doesn't say with which code.")
    else:
        end(run, State.FAILED if code else State.SUCCEEDED, detail.get("reason", ""), code)


def _too_long(run: Run) -> str:
    return f"It took longer than {run.timeout} s."


def _not_started(run: Run, detail: dict[str, Any]) -> None:
    # It may have begun, and even ended, before anybody could say so.
    if _unheard(run, run.created_at + START, "whether it began"):
        return
    reason = detail.get("reason") or f"it had not begun after {int(START.total_seconds())} s"
    end(run, State.FAILED, f"It couldn't be started: {reason}."[:300])
    # At once: it mustn't begin after all, beside another try.
    take_away(run)


def _overdue(run: Run, due: datetime) -> None:
    if timezone.now() > due and not _unheard(run, due, "how it ended"):
        end(run, State.TIMED_OUT, _too_long(run))
        take_away(run)


def _unheard(run: Run, due: datetime, what: str) -> bool:
    """Whether nobody could tell since then how the run is: it is waited for, and given up after a while."""
    assert run.replica is not None
    heard = _heard(run.replica)
    if heard >= due:
        # What was told just now, after the replica was read, is dealt with in a moment.
        return not Replica.objects.filter(pk=run.replica.pk, phase=run.replica.phase).exists()
    if timezone.now() - due > presence.SILENCE:
        since = heard.strftime("%Y-%m-%d %H:%M:%S UTC")
        end(run, State.LOST, f"Its plane is offline since {since}; {what} isn't known.")
    return True


def _heard(replica: Replica) -> datetime:
    """When those who see it run were heard of last."""
    plane = replica.plane
    if not plane.direct:
        return presence.heard_at(plane)
    places = Place.objects.filter(cell=replica.workload.cell, plane=plane, wanted=True).exclude(seen_at=None)
    return places.values_list("seen_at", flat=True).first() or plane.created_at


def end(run: Run, state: str, reason: str = "", code: int | None = None) -> None:
    """Write down how a run ended, once, and let those go on who wait for it. Call with its row locked."""
    from delivery import tasks

    run.state, run.reason, run.exit_code, run.ended_at = state, reason[:300], code, timezone.now()
    run.save(update_fields=["state", "reason", "exit_code", "ended_at", "last_lines"])
    if run.replica_id:
        tasks.run.enqueue(run.pk, countdown=LINGER.total_seconds() + 0.1)
    if run.deployment_id:
        tasks.advance.enqueue(run.deployment_id)
    if run.kind == Run.Kind.CRON and state in AGAIN:
        tasks.again.enqueue(run.pk)


def take_away(run: Run) -> None:
    """The replica goes, and with it what only it needed. Call with the run's row locked."""
    replica, run.replica, run.command = run.replica, None, b""
    run.save(update_fields=["replica", "command"])
    if replica is not None:
        replicas.remove([replica])
        _changed(run.workload.cell)


def unfinished() -> list[int]:
    """Runs that go on, and those whose replica hasn't gone."""
    rows = Run.objects.filter(Q(state__in=Run.ACTIVE) | Q(replica__isnull=False))
    return list(rows.values_list("pk", flat=True))


def stop(run: Run, reason: str) -> None:
    """End a run that goes on before it does so itself. Call in a transaction."""
    row = (
        Run.objects.select_for_update(of=("self",)).select_related("replica", "workload__cell").get(pk=run.pk)
    )
    if row.state in Run.ACTIVE:
        end(row, State.CANCELLED, reason)
        take_away(row)


def stop_undeclared(cell: Cell, release: Release) -> None:
    """End what runs of components that the release doesn't have: nothing says any more whom they may call."""
    declared = Specification.from_dict(release.specification).components
    for run in active(cell).exclude(workload__component__name__in=declared):
        stop(run, f"v{release.number} doesn't declare its component.")
