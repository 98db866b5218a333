"""REST API of runs and schedules."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest
from ninja import Field, Router, Schema

from api.paging import page
from delivery import queries, run_actions
from delivery.models import Run, Schedule
from projects.queries import get_cell
from tenants.api import actor_of

router = Router()
_CELL = "/tenants/{tenant}/projects/{project}/environments/{environment}"


class NewRun(Schema):
    component: str
    #: A program and its arguments, as they are: no shell reads them. None: what the component itself runs.
    command: list[str] = Field(default_factory=list)
    #: Seconds; 0: as the component declares, else an hour.
    timeout: int = 0


def run_out(row: Run) -> dict[str, Any]:
    return {
        "id": row.pk,
        "component": row.workload.component.name,
        "kind": row.kind,
        "state": row.state,
        "release": row.release.number,
        "deployment": row.deployment_id,
        "program": row.program,
        "words": row.words,
        "timeout": row.timeout,
        "scheduled_for": row.scheduled_for,
        "attempt": row.attempt,
        "created_by": row.created_by,
        "created_at": row.created_at,
        "started_at": row.started_at,
        "ended_at": row.ended_at,
        "exit_code": row.exit_code,
        "reason": row.reason,
        "replica": f"r{row.replica_number}" if row.replica_number else None,
        "lines_complete": row.lines_complete,
    }


def schedule_out(row: Schedule, last: Run | None) -> dict[str, Any]:
    return {
        "component": row.workload.component.name,
        "schedule": row.expression,
        "next_at": row.next_at,
        "last": run_out(last) if last else None,
    }


@router.post(f"{_CELL}/runs", operation_id="start_run", summary="Run something once in a component's image")
def start(request: HttpRequest, tenant: str, project: str, environment: str, body: NewRun) -> dict[str, Any]:
    actor = actor_of(request)
    cell = get_cell(actor, tenant, project, environment)
    row = run_actions.start(
        acting_user=actor, cell=cell, component=body.component, words=body.command, timeout=body.timeout
    )
    return run_out(row)


@router.get(f"{_CELL}/runs", operation_id="list_runs", summary="Runs, newest first")
def list_runs(
    request: HttpRequest,
    tenant: str,
    project: str,
    environment: str,
    component: str = "",
    before: int | None = None,
    limit: int = 50,
) -> list[dict[str, Any]]:
    cell = get_cell(actor_of(request), tenant, project, environment)
    return [run_out(row) for row in page(queries.runs(cell, component), before, limit)]


@router.get(f"{_CELL}/runs/{{number}}", operation_id="get_run", summary="A run and the last lines it wrote")
def read_run(
    request: HttpRequest, tenant: str, project: str, environment: str, number: int
) -> dict[str, Any]:
    cell = get_cell(actor_of(request), tenant, project, environment)
    row = queries.get_run(cell, number)
    return run_out(row) | {"last_lines": row.last_lines}


@router.post(f"{_CELL}/runs/{{number}}/cancel", operation_id="cancel_run", summary="End a run")
def cancel(request: HttpRequest, tenant: str, project: str, environment: str, number: int) -> dict[str, Any]:
    actor = actor_of(request)
    cell = get_cell(actor, tenant, project, environment)
    run_actions.cancel(acting_user=actor, cell=cell, run=queries.get_run(cell, number))
    return run_out(queries.get_run(cell, number))


@router.get(
    f"{_CELL}/schedules", operation_id="list_schedules", summary="When components of kind cron run next"
)
def list_schedules(request: HttpRequest, tenant: str, project: str, environment: str) -> list[dict[str, Any]]:
    cell = get_cell(actor_of(request), tenant, project, environment)
    return [schedule_out(row, last) for row, last in queries.schedules(cell)]
