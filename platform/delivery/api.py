"""REST API of releases, deployments and replicas."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

from django.http import HttpRequest, StreamingHttpResponse
from ninja import Router, Schema

from api.auth import authenticate
from api.paging import page
from autoscaling import queries as autoscaling
from controlplane.errors import CytoplaneError
from dataplane.planes import polling
from delivery import actions, queries, run_api
from delivery.models import Deployment, LogChunk, Release, Replica
from projects.queries import get_cell
from tenants.api import actor_of

router = Router()
router.add_router("", run_api.router)
_CELL = "/tenants/{tenant}/projects/{project}/environments/{environment}"
#: How long a log is followed, how often it is looked at, and whether it may still be read.
_FOLLOW_SECONDS, _TICK, _CHECK_SECONDS = 600, 0.3, 10.0


class Scale(Schema):
    numbers: dict[str, int]


class Promotion(Schema):
    #: Name of the environment that it goes to.
    to: str


def release_out(release: Release, serving: int | None = None) -> dict[str, Any]:
    return {
        "number": release.number,
        "commit": release.commit,
        "summary": release.summary,
        "created_at": release.created_at,
        "created_by": release.created_by,
        "serving": release.pk == serving,
        "variables": release.variable_names,
        "rolled_back_from": release.rolled_back_from.number if release.rolled_back_from else None,
        "promoted_from": _origin(release),
    }


def _origin(release: Release) -> dict[str, Any] | None:
    source = release.promoted_from
    return {"environment": source.cell.environment.name, "number": source.number} if source else None


def deployment_out(row: Deployment) -> dict[str, Any]:
    return {
        "id": row.pk,
        "kind": row.kind,
        "state": row.state,
        "release": row.release.number if row.release else None,
        "commit": row.commit,
        "summary": row.summary,
        "created_by": row.created_by,
        "created_at": row.created_at,
        "started_at": row.started_at,
        "ended_at": row.ended_at,
        "error": row.error or None,
        "still_serving": row.still_serving or None,
    }


def replica_out(row: Replica) -> dict[str, Any]:
    return {
        "id": f"r{row.pk}",
        "component": row.workload.component.name,
        "number": row.number,
        "release": row.release.number,
        "wanted": row.wanted,
        "phase": row.phase,
        "since": row.phase_since,
        "restarts": row.restarts,
        "detail": row.detail,
    }


@router.get(f"{_CELL}/releases", operation_id="list_releases", summary="Releases, newest first")
def list_releases(
    request: HttpRequest,
    tenant: str,
    project: str,
    environment: str,
    before: int | None = None,
    limit: int = 50,
) -> list[dict[str, Any]]:
    cell = get_cell(actor_of(request), tenant, project, environment)
    rows = page(queries.releases(cell), before, limit, key="number")
    return [release_out(row, cell.serving_release_id) for row in rows]


@router.post(f"{_CELL}/releases/{{number}}/rollback", operation_id="rollback", summary="Go back to a release")
def rollback(
    request: HttpRequest, tenant: str, project: str, environment: str, number: int
) -> dict[str, Any]:
    cell = get_cell(actor_of(request), tenant, project, environment)
    return deployment_out(actions.rollback(acting_user=actor_of(request), cell=cell, number=number))


@router.post(
    f"{_CELL}/releases/{{number}}/promote",
    operation_id="promote",
    summary="A release's code in another environment; answers with the deployment there",
)
def promote(
    request: HttpRequest, tenant: str, project: str, environment: str, number: int, body: Promotion
) -> dict[str, Any]:
    cell = get_cell(actor_of(request), tenant, project, environment)
    return deployment_out(
        actions.promote(acting_user=actor_of(request), cell=cell, number=number, to=body.to)
    )


@router.get(f"{_CELL}/replicas", operation_id="list_replicas", summary="What runs")
def list_replicas(request: HttpRequest, tenant: str, project: str, environment: str) -> list[dict[str, Any]]:
    cell = get_cell(actor_of(request), tenant, project, environment)
    return [replica_out(row) for row in queries.replicas(cell)]


@router.get(
    f"{_CELL}/scale",
    operation_id="get_scale",
    summary="Numbers of replicas, and how those that follow load were decided",
)
def read_scale(request: HttpRequest, tenant: str, project: str, environment: str) -> list[dict[str, Any]]:
    cell = get_cell(actor_of(request), tenant, project, environment)
    return autoscaling.scale(cell)


@router.post(f"{_CELL}/scale", operation_id="scale", summary="Numbers of replicas")
def scale(request: HttpRequest, tenant: str, project: str, environment: str, body: Scale) -> dict[str, Any]:
    cell = get_cell(actor_of(request), tenant, project, environment)
    deployment = actions.scale(acting_user=actor_of(request), cell=cell, numbers=body.numbers)
    # For those the number holds until the next decision.
    following = sorted(body.numbers.keys() & autoscaling.states(cell).keys())
    return deployment_out(deployment) | {"follow_load": following}


@router.get(f"{_CELL}/deployments", operation_id="list_deployments", summary="Deployments, newest first")
def list_deployments(
    request: HttpRequest,
    tenant: str,
    project: str,
    environment: str,
    before: int | None = None,
    limit: int = 50,
) -> list[dict[str, Any]]:
    cell = get_cell(actor_of(request), tenant, project, environment)
    return [deployment_out(row) for row in page(queries.deployments(cell), before, limit)]


@router.get(
    f"{_CELL}/deployments/{{number}}", operation_id="get_deployment", summary="A deployment and its steps"
)
def read_deployment(
    request: HttpRequest, tenant: str, project: str, environment: str, number: int
) -> dict[str, Any]:
    cell = get_cell(actor_of(request), tenant, project, environment)
    row = queries.get_deployment(cell, number)
    steps = [
        {"name": s.name, "started_at": s.started_at, "ended_at": s.ended_at, "ok": s.ok}
        for s in row.steps.all()
    ]
    return deployment_out(row) | {"steps": steps}


@router.post(f"{_CELL}/deployments/{{number}}/cancel", operation_id="cancel_deployment", summary="Cancel")
def cancel(request: HttpRequest, tenant: str, project: str, environment: str, number: int) -> dict[str, Any]:
    cell = get_cell(actor_of(request), tenant, project, environment)
    row = queries.get_deployment(cell, number)
    return deployment_out(actions.cancel(acting_user=actor_of(request), deployment=row))


@router.post(f"{_CELL}/deployments/{{number}}/retry", operation_id="retry_deployment", summary="Once more")
def retry(request: HttpRequest, tenant: str, project: str, environment: str, number: int) -> dict[str, Any]:
    cell = get_cell(actor_of(request), tenant, project, environment)
    row = queries.get_deployment(cell, number)
    return deployment_out(actions.retry(acting_user=actor_of(request), deployment=row))


@router.get(
    f"{_CELL}/deployments/{{number}}/log",
    operation_id="deployment_log",
    summary="The log as plain text; with follow=true until the deployment ends",
)
def deployment_log(
    request: HttpRequest, tenant: str, project: str, environment: str, number: int, follow: bool = False
) -> StreamingHttpResponse:
    cell = get_cell(actor_of(request), tenant, project, environment)
    row = queries.get_deployment(cell, number)

    def check() -> None:
        get_cell(authenticate(request), tenant, project, environment)

    return StreamingHttpResponse(_log(row.pk, follow, check), content_type="text/plain; charset=utf-8")


async def _log(number: int, follow: bool, check: Callable[[], None]) -> AsyncIterator[bytes]:
    """The log's text; holds no connection while it waits. Ends when the reader may not read it any more."""
    seen, checked = 0, time.monotonic()
    for _ in range(int(_FOLLOW_SECONDS / _TICK)):
        if time.monotonic() - checked >= _CHECK_SECONDS:
            checked = time.monotonic()
            try:
                await polling.query(check)
            except CytoplaneError:
                return
        seen, text, ended = await polling.query(_chunks, number, seen)
        if text:
            yield text.encode()
        if ended or not follow:
            return
        await asyncio.sleep(_TICK)


def _chunks(number: int, seen: int) -> tuple[int, str, bool]:
    ended = Deployment.objects.filter(pk=number, state__in=Deployment.ENDED).exists()
    rows = list(LogChunk.objects.filter(deployment_id=number, pk__gt=seen).order_by("pk"))
    return (rows[-1].pk if rows else seen), "".join(row.text for row in rows), ended
