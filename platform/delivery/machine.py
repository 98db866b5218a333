"""A deployment's way from state to state. ``advance`` takes the next step if there is one to take.

Each step is one transaction on the locked row, so that a worker that dies in the middle leaves the
state before it, and two workers can't both take it. Whatever a step waits for wakes it; the sweep
takes care of what was lost.
"""

from __future__ import annotations

import json
import logging
from datetime import timedelta

from django.db import transaction
from django.db.models import F
from django.utils import timezone

from cells.provisioning import actions as provisioning
from cells.specification import Specification
from controlplane.errors import CATALOGUE, CytoplaneError
from dataplane.planes import actions as planes
from dataplane.planes import snapshots
from dataplane.planes.models import Plane
from delivery import branches, environment, jobs, log, offline, publish, replicas, runs, schedules
from delivery.models import Build, Deployment, DeploymentStep, Push, Release, Replica
from projects import actions as projects
from projects import hosts
from projects.models import Cell, Host
from tenants.keys import Box

logger = logging.getLogger("cytoplane.delivery")
State = Deployment.State
BUILD_LIMIT = timedelta(minutes=15)
BUILDER_SILENCE = timedelta(seconds=30)
BUILD_ATTEMPTS = 2
#: Beyond the longest grace of its components.
START_MARGIN = timedelta(seconds=45)
#: Requests that were on their way to an old replica when the gateway switched.
DRAIN = timedelta(seconds=3)
HEARTBEAT = timedelta(seconds=30)
NODE_SILENCE = timedelta(seconds=20)


def advance(deployment_id: int) -> str:
    """Take steps until one has to wait; the state that was reached."""
    state = ""
    for _ in range(10):
        with transaction.atomic():
            deployment = (
                Deployment.objects.select_for_update(skip_locked=True, of=("self",))
                .select_related(
                    "cell__project__tenant", "cell__environment__plane", "cell__serving_release", "release"
                )
                .filter(pk=deployment_id)
                .first()
            )
            if deployment is None or deployment.state in Deployment.ENDED:
                return deployment.state if deployment else ""
            before = deployment.state
            # A state may take long, as with jobs: what counts is since when nothing has gone well in it.
            since = max(deployment.state_since, deployment.lease_until or deployment.state_since)
            deployment.lease_until = timezone.now() + HEARTBEAT
            try:
                # A step that fails is undone as a whole, then the failure is recorded.
                with transaction.atomic():
                    _cancelled(deployment)
                    _STEPS[deployment.state](deployment)
            except CytoplaneError as error:
                _undone(deployment)
                fail(deployment, error)
            except Exception:
                # Whatever it was may pass (a database that restarts); what stays must not block the cell.
                stuck = timezone.now() - since > BUILD_LIMIT
                if not stuck or deployment.state not in (State.QUEUED, State.BUILDING, State.STARTING):
                    raise
                logger.exception("deployment %s can't go on", deployment_id)
                _undone(deployment)
                fail(deployment, CytoplaneError("internal"))
            deployment.save()
            state = deployment.state
        if state == before:
            return state
    return state


def _undone(deployment: Deployment) -> None:
    """Forget what the failed step set on the object; its rows are undone already."""
    deployment.refresh_from_db(fields=["state", "state_since", "release", "awaited_generation", "commit"])


def _enter(deployment: Deployment, state: str, step: str = "") -> None:
    """Leave the current state; ``step`` begins in the new one."""
    now = timezone.now()
    # What is on its way declares something too.
    planes.note(deployment.cell.environment.plane, [deployment.cell.number])
    deployment.steps.filter(ended_at=None).update(ended_at=now, ok=True)
    deployment.state = state
    deployment.state_since = now
    if step:
        DeploymentStep.objects.create(deployment=deployment, name=step)
    if state in Deployment.ENDED:
        deployment.ended_at = now
        _next_one(deployment)


def _next_one(deployment: Deployment) -> None:
    from delivery.tasks import advance as task

    for pk in Deployment.objects.filter(cell_id=deployment.cell_id, state=State.QUEUED).values_list(
        "pk", flat=True
    ):
        task.enqueue(pk)


def _cancelled(deployment: Deployment) -> None:
    if deployment.cancel_requested and deployment.state in (State.QUEUED, State.BUILDING, State.STARTING):
        raise CytoplaneError("deployment-cancelled")


def _queued(deployment: Deployment) -> None:
    busy = Deployment.objects.filter(
        cell=deployment.cell, state__in=[State.BUILDING, State.STARTING, State.SWITCHING, State.DRAINING]
    )
    if busy.exists():
        return
    plane = deployment.cell.environment.plane
    if plane is None:
        raise CytoplaneError("unavailable", part="a data plane for this environment")
    if offline.held(deployment):
        return
    if plane.engine == Plane.Engine.KUBERNETES and not plane.nodes.filter(kind="agent").exists():
        # Pods would wait for their network until the time is over.
        raise CytoplaneError("plane-offline", plane=plane.name, since="it was made: no agent has enrolled")
    if deployment.kind in (Deployment.Kind.SCALE, Deployment.Kind.CONFIG) and not _rebase(deployment):
        return
    if deployment.kind == Deployment.Kind.PUSH and not deployment.release_id:
        branches.check(deployment)
    deployment.started_at = timezone.now()
    if deployment.release_id:
        _enter(deployment, State.STARTING, "start")
        return
    _enter(deployment, State.BUILDING, "build")
    deployment.build.state = Build.State.WAITING
    deployment.build.save(update_fields=["state"])
    publish.wake_builders()


def _rebase(deployment: Deployment) -> bool:
    """Scale and configuration change what serves when they begin, not what served when they were asked for.

    False where the cell is locked: who holds it may wait for this deployment, so this one tries again.
    """
    cell = (
        Cell.objects.select_for_update(skip_locked=True, of=("self",), no_key=True)
        .select_related("project__tenant", "environment", "serving_release")
        .filter(pk=deployment.cell_id)
        .first()
    )
    if cell is None:
        return False
    serving, release = cell.serving_release, deployment.release
    assert serving is not None
    if deployment.kind == Deployment.Kind.SCALE:
        deployment.release = serving
    elif release is None or (release.images, release.specification, release.config_version) != (
        serving.images,
        serving.specification,
        cell.config_version,
    ):
        deployment.release = create_release(
            cell,
            specification=serving.specification,
            images=serving.images,
            commit=serving.commit,
            summary=deployment.summary,
            created_by=deployment.created_by,
        )
    deployment.commit = serving.commit
    return True


def _building(deployment: Deployment) -> None:
    build, now = deployment.build, timezone.now()
    if build.state == Build.State.DONE:
        deployment.release = make_release(deployment, build.result)
        _enter(deployment, State.STARTING, "start")
    elif build.state == Build.State.FAILED:
        error = build.result["error"]
        raise CytoplaneError(
            error["code"] if error.get("code") in CATALOGUE else "build-failed", **error.get("parameters", {})
        )
    elif now - deployment.state_since > BUILD_LIMIT:
        raise CytoplaneError("build-timeout", limit=int(BUILD_LIMIT.total_seconds()))
    elif build.state == Build.State.CLAIMED and now - (build.heartbeat_at or now) > BUILDER_SILENCE:
        if build.attempt >= BUILD_ATTEMPTS:
            raise CytoplaneError("builder-lost")
        lost = Build.objects.filter(pk=build.pk, state=Build.State.CLAIMED, heartbeat_at=build.heartbeat_at)
        if lost.update(state=Build.State.WAITING, node=None):
            log.say(deployment, "The builder went away; another attempt begins")
            publish.wake_builders()


def make_release(deployment: Deployment, result: dict) -> Release:
    """The release of a build: its images and declarations with the configuration of this moment."""
    cell = (
        Cell.objects.select_for_update(of=("self",), no_key=True)
        .select_related("project__tenant", "environment")
        .get(pk=deployment.cell_id)
    )
    specification = Specification.from_dict(result["specification"])
    projects.sync_specification(cell=cell, specification=specification)
    return create_release(
        cell,
        specification=specification.as_dict(),
        images=result["images"],
        commit=deployment.commit,
        summary=deployment.summary,
        created_by=deployment.created_by,
    )


def create_release(
    cell: Cell,
    *,
    specification: dict,
    images: dict,
    commit: str,
    summary: str,
    created_by: str,
    configuration: dict | None = None,
    rolled_back_from: Release | None = None,
    promoted_from: Release | None = None,
) -> Release:
    """A new immutable release. Call with the cell's row locked: numbers have no gaps and no twins."""
    last = Release.objects.filter(cell=cell).order_by("-number").values_list("number", flat=True).first() or 0
    values = projects.configuration(cell) if configuration is None else configuration
    release = Release(
        cell=cell,
        number=last + 1,
        commit=commit,
        summary=summary[:200],
        specification=specification,
        images=images,
        config_version=cell.config_version,
        variable_names=sorted({name for part in values.values() for name in part}),
        created_by=created_by,
        rolled_back_from=rolled_back_from,
        promoted_from=promoted_from,
    )
    box = Box(cell.project.tenant_id)
    release.configuration = box.seal(json.dumps(values), environment.purpose(release))
    release.save()
    return release


def _starting(deployment: Deployment) -> None:
    release, cell = deployment.release, deployment.cell
    assert release is not None
    if not jobs.done(deployment, release):
        return
    made = replicas.ensure(cell, release)
    if made:
        log.say(deployment, f"Starting {made} replica{'s' if made > 1 else ''} of v{release.number}")
        _runs_else(cell)
    mine = list(
        Replica.objects.filter(release=release, wanted=Replica.Wanted.RUN).select_related(
            "workload__component"
        )
    )
    for replica in mine:
        if replica.phase == Replica.Phase.FAILED:
            raise _failure(replica)
    waiting = [replica for replica in mine if replica.phase != Replica.Phase.HEALTHY]
    if waiting:
        _start_timeout(deployment, release, waiting)
        return
    _switch(deployment)


def _runs_else(cell: Cell) -> None:
    """Replicas came or went: nodes have to know, and on Kubernetes whoever makes pods."""
    planes.touch(cell.environment.plane, [cell.number])
    provisioning.changed(cell)


def _start_timeout(deployment: Deployment, release: Release, waiting: list[Replica]) -> None:
    specification = Specification.from_dict(release.specification)
    grace = max((c.health.grace for c in specification.components.values()), default=0)
    limit = timedelta(seconds=grace) + START_MARGIN
    if timezone.now() - deployment.state_since < limit:
        return
    if offline.held(deployment):
        # The time counts from when the plane is back.
        deployment.state_since = timezone.now()
        return
    plane = deployment.cell.environment.plane
    node = plane.nodes.filter(kind="agent").order_by(F("last_seen_at").desc(nulls_last=True)).first()
    if node is None or node.last_seen_at is None or timezone.now() - node.last_seen_at > NODE_SILENCE:
        since = node.last_seen_at.strftime("%H:%M:%S UTC") if node and node.last_seen_at else "it was made"
        raise CytoplaneError("plane-offline", plane=plane.name, since=since)
    for replica in waiting:
        # What it waits for might have come, and didn't.
        if replica.detail.get("reason"):
            raise _failure(replica)
    raise CytoplaneError("deployment-timeout", limit=int(limit.total_seconds()))


def _tell(deployment: Deployment, replica: Replica) -> None:
    """Write into the log what is known about a replica that didn't start."""
    lines = [str(line) for line in replica.detail.get("last_lines", [])][-30:]
    name = replica.workload.component.name
    if lines:
        log.say(deployment, f"Last lines of {name}.{replica.number}")
        log.write(deployment, "".join(f"       {line[:400]}\n" for line in lines))


def _failure(replica: Replica) -> CytoplaneError:
    name, detail = replica.workload.component.name, replica.detail
    if detail.get("probe"):
        probe = detail["probe"]
        return CytoplaneError(
            "probe-failed", component=name, probe=probe.get("what", ""), answer=probe.get("answer", "")
        )
    if detail.get("exit_code") is not None:
        return CytoplaneError("process-exited", component=name, code=detail["exit_code"])
    return CytoplaneError("start-failed", component=name, reason=detail.get("reason", "it isn't known why"))


def _switch(deployment: Deployment) -> None:
    """The new release serves from here on; the node is waited for in the next state."""
    cell, release = deployment.cell, deployment.release
    assert release is not None
    from autoscaling import actions as autoscaling

    log.say(deployment, "Healthy; switching traffic")
    replicas.switch(cell, release)
    cell.serving_release = release
    cell.save(update_fields=["serving_release"])
    hosts.move(cell, Specification.from_dict(release.specification))
    hosts.give_back([cell.pk])
    runs.stop_undeclared(cell, release)
    schedules.follow(cell, release)
    autoscaling.follow(cell, release)
    deployment.awaited_generation = None
    _enter(deployment, State.SWITCHING, "switch")
    planes.touch(cell.environment.plane, [cell.number])


def _switching(deployment: Deployment) -> None:
    plane = deployment.cell.environment.plane
    if deployment.awaited_generation is None:
        deployment.awaited_generation = snapshots.rebuild(plane.pk)
        return
    if not _applied(plane, deployment.awaited_generation):
        return
    release = deployment.release
    assert release is not None
    log.say(deployment, f"v{release.number} is live in {deployment.cell.environment.name}")
    for row in Host.objects.filter(endpoint__workload__cell=deployment.cell).order_by("name"):
        log.detail(deployment, publish.address(row.name))
    _enter(deployment, State.DRAINING, "drain")


def _applied(plane: Plane, generation: int) -> bool:
    """Whether a node has applied it, and every one that was heard of lately.

    One that is away goes on from what it knows, and catches up when it is back.
    """
    agents = plane.nodes.filter(kind="agent")
    lately = agents.filter(last_seen_at__gt=timezone.now() - NODE_SILENCE)
    behind = lately.filter(acknowledged__lt=generation)
    return agents.filter(acknowledged__gte=generation).exists() and not behind.exists()


def _draining(deployment: Deployment) -> None:
    old = Replica.objects.filter(workload__cell=deployment.cell, wanted=Replica.Wanted.DRAIN).select_related(
        "plane"
    )
    rows = list(old)
    if rows and timezone.now() - deployment.state_since < DRAIN:
        return
    if rows:
        replicas.remove(rows)
        _runs_else(deployment.cell)
    _enter(deployment, State.LIVE)
    _finish_push(deployment)


def fail(deployment: Deployment, error: CytoplaneError) -> None:
    """End a deployment that hasn't switched: what it started goes, what served still serves."""
    cell = deployment.cell
    jobs.stop(deployment)
    # One that waits has started nothing: what is on its way of the same release is another's.
    if deployment.release_id and deployment.state != State.QUEUED:
        rows = list(
            Replica.objects.filter(release=deployment.release, wanted=Replica.Wanted.RUN).select_related(
                "plane", "workload__component"
            )
        )
        for replica in rows:
            _tell(deployment, replica)
        replicas.remove(rows)
        if rows:
            _runs_else(cell)
    Build.objects.filter(deployment=deployment, state__in=[Build.State.WAITING, Build.State.CLAIMED]).update(
        state=Build.State.CANCELLED, ended_at=timezone.now()
    )
    deployment.steps.filter(ended_at=None).update(ended_at=timezone.now(), ok=False)
    state = State.CANCELLED if error.code == "deployment-cancelled" else State.FAILED
    serving = Release.objects.filter(pk=cell.serving_release_id).first()
    deployment.still_serving = f"v{serving.number}" if serving else ""
    deployment.error_code = error.code
    deployment.error = {"id": error.code, "message": error.message, "next": error.next}
    _enter(deployment, state)
    if deployment.release_id:
        deployment.save()
        hosts.give_back([cell.pk])
    log.say(deployment, f"{'Cancelled' if state == State.CANCELLED else 'Failed'}: {error.message}")
    log.detail(deployment, f"error id: {error.code}")
    log.detail(
        deployment,
        f"v{serving.number} still serves."
        if serving
        else "Nothing has been released here yet, so nothing serves.",
    )
    log.detail(deployment, f"Next: {error.next}")


def _finish_push(deployment: Deployment) -> None:
    """Let the worker move the branch if the pusher is gone by then."""
    from delivery.tasks import finish_push

    if Push.objects.filter(deployment=deployment).exists():
        finish_push.enqueue(deployment.pk, countdown=10)


_STEPS = {
    State.QUEUED: _queued,
    State.BUILDING: _building,
    State.STARTING: _starting,
    State.SWITCHING: _switching,
    State.DRAINING: _draining,
}
