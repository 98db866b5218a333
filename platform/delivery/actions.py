"""The only writers of deployments, builds and replicas."""

from __future__ import annotations

import re
from typing import Any

from django.conf import settings
from django.db import transaction
from django.db.models import Q
from django.utils import timezone

from cells.specification import Specification, SpecificationError, validate
from controlplane.errors import CytoplaneError
from dataplane.planes.models import Node, Plane
from delivery import environment, log, machine, tasks
from delivery.models import Build, Deployment, Push, Release, Replica
from delivery.queries import replica_number, underway
from delivery.serving import locked_cell, serving_release
from projects import quotas
from projects.actions import sync_specification
from projects.models import Cell
from tenants import audit
from tenants.keys import Box
from tenants.policy import Actor, authorise

State = Deployment.State
MOST_REPLICAS = 50
#: Who asked for what replicas' load asks for.
AUTOSCALING = "autoscaling"
#: What a node may say about a replica, and how much of it is kept.
_PHASES = set(Replica.Phase.values)


def _queue(cell: Cell, **fields: Any) -> Deployment:
    """A waiting deployment. The one that waited before is superseded: only the newest matters."""
    Cell.objects.select_for_update(of=("self",), no_key=True).get(pk=cell.pk)
    for waiting in Deployment.objects.select_for_update().filter(cell=cell, state=State.QUEUED):
        error = CytoplaneError("deployment-superseded")
        waiting.state, waiting.ended_at = State.SUPERSEDED, timezone.now()
        waiting.error_code = error.code
        waiting.error = {"id": error.code, "message": error.message, "next": error.next}
        waiting.save()
        Build.objects.filter(deployment=waiting).update(
            state=Build.State.CANCELLED, ended_at=waiting.ended_at
        )
        log.say(waiting, error.message)
    deployment = Deployment.objects.create(cell=cell, **fields)
    tasks.advance.enqueue(deployment.pk)
    return deployment


def _taken_along(cell: Cell, what: str, *, configuration: bool) -> Deployment | None:
    """What waits already and will bring a change of scale or configuration with it.

    A waiting push makes its release later, and everything starts with the scale of then. Superseding
    it would lose code. A release that waits has its configuration already: then `conflict`.
    """
    waiting = Deployment.objects.select_for_update().filter(cell=cell, state=State.QUEUED).first()
    own = Deployment.Kind.CONFIG if configuration else Deployment.Kind.SCALE
    if waiting is None or waiting.kind in (Deployment.Kind.SCALE, own):
        return None
    if configuration and waiting.release_id:
        raise CytoplaneError(
            "conflict", message=f"A {waiting.kind} waits for its turn; its configuration is fixed."
        )
    log.say(waiting, f"{what}; this deployment takes it along")
    return waiting


@transaction.atomic
def start_push(
    *,
    acting_user: Actor,
    cell: Cell,
    branch: str,
    old: str,
    new: str,
    summary: str,
    archive: str,
    waits: bool | None = None,
) -> Deployment:
    """Deploy a pushed commit, whose source lies in ``archive``."""
    authorise(acting_user, "push", cell.project.tenant)
    deployment = _queue(
        cell,
        kind=Deployment.Kind.PUSH,
        commit=new,
        summary=summary[:200],
        created_by=acting_user.name,
        waits=waits,
    )
    Build.objects.create(deployment=deployment, archive=archive)
    Push.objects.create(
        deployment=deployment, branch=branch, old_commit=old, new_commit=new, attached_at=timezone.now()
    )
    audit.record(
        acting_user, "push", deployment, tenant=cell.project.tenant, name=str(cell), changes={"commit": new}
    )
    return deployment


@transaction.atomic
def rollback(*, acting_user: Actor, cell: Cell, number: int) -> Deployment:
    """A new release that equals an old one, code and configuration together, on its way."""
    tenant = cell.project.tenant
    authorise(acting_user, "deploy", tenant)
    cell = locked_cell(cell.pk)
    old = Release.objects.filter(cell=cell, number=number).first()
    if old is None:
        raise CytoplaneError("not-found", kind="release")
    serving = serving_release(cell)
    if old.pk == serving.pk:
        raise CytoplaneError("conflict", message=f"v{number} is what serves already.")
    import json

    configuration = json.loads(Box(tenant.pk).unseal(old.configuration, environment.purpose(old)))
    sync_specification(cell=cell, specification=Specification.from_dict(old.specification))
    release = machine.create_release(
        cell,
        specification=old.specification,
        images=old.images,
        commit=old.commit,
        summary=f"Roll back to v{number}: {old.summary}",
        created_by=acting_user.name,
        configuration=configuration,
        rolled_back_from=old,
    )
    audit.record(
        acting_user, "release.rollback", release, tenant=tenant, name=str(cell), changes={"to": number}
    )
    return _queue(
        cell,
        kind=Deployment.Kind.ROLLBACK,
        release=release,
        commit=old.commit,
        summary=f"Roll back to v{number}",
        created_by=acting_user.name,
    )


@transaction.atomic
def promote(*, acting_user: Actor, cell: Cell, number: int, to: str) -> Deployment:
    """The code of a release in another environment of its project, with that environment's configuration.

    Nothing is built: its images are the same by their digests, whatever engine either runs on. Raises
    `not-found`, `conflict`, and what a push there could raise (`quota`, `host-taken`).
    """
    tenant = cell.project.tenant
    authorise(acting_user, "deploy", tenant)
    source = Release.objects.filter(cell=cell, number=number).first()
    if source is None:
        raise CytoplaneError("not-found", kind="release")
    target = Cell.objects.filter(project=cell.project, environment__name=to).first()
    if target is None:
        raise CytoplaneError("not-found", kind="environment")
    if target.pk == cell.pk:
        raise CytoplaneError("conflict", message=f"v{number} is a release of {to} already; roll back to it.")
    target = locked_cell(target.pk)
    sync_specification(cell=target, specification=Specification.from_dict(source.specification))
    said = f"v{number} of {cell.environment.name}"
    release = machine.create_release(
        target,
        specification=source.specification,
        images=source.images,
        commit=source.commit,
        summary=f"Promote {said}: {source.summary}",
        created_by=acting_user.name,
        promoted_from=source,
    )
    audit.record(
        acting_user, "release.promote", release, tenant=tenant, name=str(target), changes={"from": said}
    )
    return _queue(
        target,
        kind=Deployment.Kind.PROMOTION,
        release=release,
        commit=source.commit,
        summary=f"Promote {said}",
        created_by=acting_user.name,
    )


@transaction.atomic
def deploy_configuration(*, acting_user: Actor, cell: Cell) -> Deployment:
    """The serving code with the configuration as it is now, as a new release."""
    authorise(acting_user, "configure", cell.project.tenant)
    cell = locked_cell(cell.pk)
    serving = serving_release(cell)
    if waiting := _taken_along(cell, "Configuration changed", configuration=True):
        return waiting
    release = machine.create_release(
        cell,
        specification=serving.specification,
        images=serving.images,
        commit=serving.commit,
        summary="Configuration changed",
        created_by=acting_user.name,
    )
    return _queue(
        cell,
        kind=Deployment.Kind.CONFIG,
        release=release,
        commit=serving.commit,
        summary="Configuration changed",
        created_by=acting_user.name,
    )


@transaction.atomic
def scale(*, acting_user: Actor, cell: Cell, numbers: dict[str, int]) -> Deployment:
    """Other numbers of replicas for components of the serving release."""
    tenant = cell.project.tenant
    authorise(acting_user, "scale", tenant)
    cell = locked_cell(cell.pk)
    serving = serving_release(cell)
    specification = Specification.from_dict(serving.specification)
    for name, number in numbers.items():
        if name not in specification.components:
            raise CytoplaneError("not-found", kind="component")
        if not 0 <= number <= MOST_REPLICAS:
            raise CytoplaneError("invalid", field=name, message=f"Replicas are 0 to {MOST_REPLICAS}.")
        if (component := specification.components[name]).task is not None:
            raise CytoplaneError(
                "invalid", field=name, message=f"`{name}` is a {component.kind}: it runs and ends."
            )
        if specification.components[name].number(number) != number:
            scaling = specification.components[name].scaling
            assert scaling is not None
            raise CytoplaneError("scales-itself", component=name, least=scaling.least, most=scaling.most)
    changes = {"scale": _take(cell, numbers)}
    audit.record(acting_user, "scale", cell, tenant=tenant, changes=changes)
    summary = "Scale " + ", ".join(f"{name} to {number}" for name, number in sorted(numbers.items()))
    return _scaled(cell, serving, summary, acting_user.name)


@transaction.atomic
def autoscale(*, cell: Cell, numbers: dict[str, int], why: dict[str, str]) -> Deployment:
    """What the load of components asks for: by the platform itself, within what their declarations allow.

    ``why``: component → a sentence with figures. Call with the cell's row locked and nothing under way.
    """
    changes = {"scale": _take(cell, numbers), "why": why}
    audit.record(AUTOSCALING, "scale", cell, tenant=cell.project.tenant, changes=changes)
    summary = "Scale " + "; ".join(f"{name} from {text}" for name, text in sorted(why.items()))
    return _scaled(cell, serving_release(cell), summary, AUTOSCALING)


def fits(cell: Cell, numbers: dict[str, int]) -> dict[str, int]:
    """All numbers of the cell with these among them. Raises `quota` if the plan doesn't allow them."""
    scale = {**cell.scale, **numbers}
    specification = Specification.from_dict(serving_release(cell).specification)
    for meant in (specification, *(coming for _, coming in underway(Q(cell=cell)))):
        quotas.check(cell, meant, scale)
    return scale


def _take(cell: Cell, numbers: dict[str, int]) -> list[dict[str, int]]:
    """Have the cell's row say these numbers; all of them before and now."""
    before, cell.scale = dict(cell.scale), fits(cell, numbers)
    cell.save(update_fields=["scale"])
    return [before, cell.scale]


def _scaled(cell: Cell, serving: Release, summary: str, created_by: str) -> Deployment:
    if waiting := _taken_along(cell, summary, configuration=False):
        return waiting
    return _queue(
        cell,
        kind=Deployment.Kind.SCALE,
        release=serving,
        commit=serving.commit,
        summary=summary[:200],
        created_by=created_by,
    )


@transaction.atomic
def cancel(*, acting_user: Actor, deployment: Deployment) -> Deployment:
    """Ask a deployment to stop; one that has switched already can't."""
    tenant = deployment.cell.project.tenant
    authorise(acting_user, "deploy", tenant)
    row = Deployment.objects.select_for_update().get(pk=deployment.pk)
    if row.state not in (State.QUEUED, State.BUILDING, State.STARTING):
        raise CytoplaneError(
            "conflict", message=f"The deployment is {row.state}; it can't be cancelled any more."
        )
    row.cancel_requested = True
    row.save(update_fields=["cancel_requested"])
    audit.record(acting_user, "deployment.cancel", row, tenant=tenant, name=str(deployment.cell))
    tasks.advance.enqueue(row.pk)
    return row


@transaction.atomic
def retry(*, acting_user: Actor, deployment: Deployment) -> Deployment:
    """The same release, or the same source, once more."""
    cell = locked_cell(deployment.cell_id)
    tenant = cell.project.tenant
    authorise(acting_user, "deploy", tenant)
    if deployment.state not in (State.FAILED, State.CANCELLED):
        raise CytoplaneError(
            "conflict", message="Only a deployment that failed or was cancelled can be retried."
        )
    build = Build.objects.filter(deployment=deployment).first()
    if deployment.release_id is None and (build is None or not build.archive):
        raise CytoplaneError("conflict", message="Its source isn't kept any more; push again.")
    if deployment.release is not None:
        # What it had reserved was given back when it failed.
        sync_specification(cell=cell, specification=Specification.from_dict(deployment.release.specification))
    again = _queue(
        cell,
        kind=deployment.kind,
        release=deployment.release,
        commit=deployment.commit,
        summary=deployment.summary,
        created_by=acting_user.name,
    )
    if deployment.release_id is None and build is not None:
        Build.objects.create(deployment=again, archive=build.archive)
    audit.record(acting_user, "deployment.retry", again, tenant=tenant, name=str(cell))
    return again


# What nodes report.


def record_replica_reports(plane: Plane, reports: list[dict[str, Any]]) -> None:
    """Take the phases that a node reports for replicas of its own plane; others are ignored."""
    by_id = {}
    for report in reports:
        number, phase = replica_number(report.get("id")), report.get("phase")
        if number and isinstance(phase, str) and phase in _PHASES:
            by_id[number] = report
    changed, once = set(), []
    for replica in Replica.objects.filter(pk__in=by_id, plane=plane):
        report = by_id[replica.pk]
        detail = _detail(report)
        restarts = report.get("restarts", 0)
        restarts = restarts if isinstance(restarts, int) and 0 <= restarts < 2**31 else 0
        if (replica.phase, replica.detail, replica.restarts) == (report["phase"], detail, restarts):
            continue
        if replica.phase != report["phase"]:
            replica.phase_since = timezone.now()
            changed.add(replica.release_id)
        if replica.once:
            once.append(replica.once["run"])
        # One that was taken away meanwhile mustn't cost the others what is said of them.
        Replica.objects.filter(pk=replica.pk).update(
            phase=report["phase"], phase_since=replica.phase_since, detail=detail, restarts=restarts
        )
    for run in once:
        tasks.run.enqueue(run)
    if changed:
        for pk in Deployment.objects.filter(release__in=changed, state=State.STARTING).values_list(
            "pk", flat=True
        ):
            tasks.advance.enqueue(pk)


def _detail(report: dict[str, Any]) -> dict[str, Any]:
    """The parts of a report that are kept, each bounded."""
    detail: dict[str, Any] = {}
    if isinstance(report.get("exit_code"), int):
        detail["exit_code"] = report["exit_code"]
    if report.get("timed_out") is True:
        detail["timed_out"] = True
    if isinstance(report.get("reason"), str):
        detail["reason"] = report["reason"][:300].replace("\0", "")
    if isinstance(report.get("node"), str):
        detail["node"] = report["node"][:80].replace("\0", "")
    if isinstance(report.get("started_at"), int | float) and abs(report["started_at"]) < 2**40:
        detail["started_at"] = report["started_at"]
    if isinstance(report.get("last_lines"), list):
        detail["last_lines"] = [str(line)[:400].replace("\0", "") for line in report["last_lines"][-30:]]
    probe = report.get("probe")
    if isinstance(probe, dict):
        detail["probe"] = {key: str(probe.get(key, ""))[:200].replace("\0", "") for key in ("what", "answer")}
    return detail


def plane_returned(plane_id: int) -> None:
    """A plane is heard of again: what waited for it goes on."""
    waiting = Deployment.objects.filter(cell__environment__plane=plane_id).exclude(state__in=Deployment.ENDED)
    for pk in waiting.values_list("pk", flat=True):
        tasks.advance.enqueue(pk)


def generation_acknowledged(plane_id: int | None, generation: int) -> None:
    """A node has applied a generation: deployments that wait for it go on."""
    waiting = Deployment.objects.filter(
        cell__environment__plane=plane_id, state=State.SWITCHING, awaited_generation__lte=generation
    )
    for pk in waiting.values_list("pk", flat=True):
        tasks.advance.enqueue(pk)


# What builders report.


@transaction.atomic
def claim_build(node: Node) -> Build | None:
    """The oldest waiting build, now this builder's."""
    build = (
        Build.objects.select_for_update(skip_locked=True, of=("self",))
        .filter(state=Build.State.WAITING, deployment__state=State.BUILDING)
        .select_related("deployment__cell__project__tenant")
        .order_by("pk")
        .first()
    )
    if build is None:
        return None
    build.state = Build.State.CLAIMED
    build.node = node
    build.attempt += 1
    build.heartbeat_at = timezone.now()
    build.save(update_fields=["state", "node", "attempt", "heartbeat_at"])
    return build


def finish_build(build: Build, result: dict[str, Any]) -> None:
    """A builder's result, which is a claim: what it declares is judged by the parser's rules.

    One that can't be taken ends the build, and raises `build-refused`.
    """
    refused = None
    with transaction.atomic():
        row = Build.objects.select_for_update().get(pk=build.pk)
        if row.state != Build.State.CLAIMED:
            return
        row.state = Build.State.FAILED
        if result.get("ok") is True:
            try:
                row.result = _judged(row.deployment.cell, result)
                row.state = Build.State.DONE
            except CytoplaneError as error:
                refused = error
                row.result = {"error": {"code": error.code, "parameters": error.parameters}}
        else:
            row.result = {"error": _error(result.get("error"))}
        row.ended_at = timezone.now()
        row.save(update_fields=["state", "result", "ended_at"])
        tasks.advance.enqueue(row.deployment_id)
    if refused is not None:
        raise refused


def _judged(cell: Cell, result: dict[str, Any]) -> dict[str, Any]:
    """Specification and images of a result; `build-refused` for what no build of the cell can have."""
    try:
        specification = validate(
            result.get("specification"), project=cell.project.slug, domain=settings.CONFIG.apps_domain
        )
    except SpecificationError as error:
        raise CytoplaneError("build-refused", reason=str(error)[:300])
    own = re.compile(re.escape(image_prefix(cell)) + "@sha256:[0-9a-f]{64}")
    given = result.get("images")
    images = {}
    for name in specification.components:
        image = given.get(name) if isinstance(given, dict) else None
        if not isinstance(image, str) or not own.fullmatch(image):
            raise CytoplaneError(
                "build-refused", reason=f"the image of {name} isn't one of the project's own"
            )
        images[name] = image
    return {"specification": specification.as_dict(), "images": images}


def _error(reported: Any) -> dict[str, Any]:
    """A builder's error in a form that can be stored and shown, whatever was in the source."""
    reported = reported if isinstance(reported, dict) else {}
    parameters = reported.get("parameters")
    values = parameters if isinstance(parameters, dict) else {}
    # PostgreSQL's text holds neither zero bytes nor half characters.
    clean = {
        key: str(value)[:2000].replace("\0", "\ufffd").encode(errors="replace").decode()
        for key, value in values.items()
        if key.isidentifier()
    }
    return {"code": str(reported.get("code", ""))[:40].replace("\0", ""), "parameters": clean}


def image_prefix(cell: Cell) -> str:
    """The repository of a project's images, without a registry's host."""
    return f"t{cell.project.tenant_id}/p{cell.project_id}"
