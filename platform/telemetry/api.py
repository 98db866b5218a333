"""REST API of edges, logs, explanations and what could be learned."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest
from ninja import Router

from cells.boundary import Explanation
from cells.boundary.ends import End
from projects.models import Cell
from projects.queries import get_cell
from telemetry import learning, queries
from telemetry.actions import KEPT_HOURS
from tenants.api import actor_of

router = Router()
_CELL = "/tenants/{tenant}/projects/{project}/environments/{environment}"


@router.get(f"{_CELL}/edges", operation_id="list_edges", summary="Who talked to whom, allowed and denied")
def list_edges(
    request: HttpRequest,
    tenant: str,
    project: str,
    environment: str,
    minutes: int = 60,
    denied: bool | None = None,
) -> list[dict[str, Any]]:
    cell = get_cell(actor_of(request), tenant, project, environment)
    return queries.edges(cell, max(1, min(minutes, 2880)), denied)


@router.get(f"{_CELL}/logs", operation_id="list_logs", summary="Lines that processes wrote")
def list_logs(
    request: HttpRequest,
    tenant: str,
    project: str,
    environment: str,
    component: str = "",
    replica: str = "",
    after: int = 0,
    limit: int = 200,
) -> list[dict[str, Any]]:
    cell = get_cell(actor_of(request), tenant, project, environment)
    return [
        {
            "id": row.pk,
            "at": row.at,
            "component": row.component,
            "replica": f"r{row.replica}",
            "stream": row.stream,
            "text": row.text,
        }
        for row in queries.log_lines(cell, component, after, limit, replica)
    ]


@router.get(f"{_CELL}/why", operation_id="why", summary="Why a call is allowed or denied")
def why(
    request: HttpRequest,
    tenant: str,
    project: str,
    environment: str,
    source: str,
    destination: str,
    port: int = 0,
    protocol: str = "",
) -> dict[str, Any]:
    cell = get_cell(actor_of(request), tenant, project, environment)
    start, target, answers = queries.why(cell, source, destination, port, protocol)
    # Without a port there is an answer for each; the first stands for those who ask for one.
    return {
        **_answer_out(answers[0]),
        "source": _end_out(start, cell),
        "destination": _end_out(target, cell),
        "answers": [_answer_out(answer) for answer in answers],
    }


def _end_out(end: End, cell: Cell) -> dict[str, Any]:
    own = end.cell is not None and end.cell.tenant == cell.project.tenant_id
    return {
        "asked": end.text,
        "kind": end.kind,
        "is": end.sentence,
        "identity": end.identity or None,
        "project": end.cell.project if own and end.cell else None,
        "environment": end.cell.environment if own and end.cell else None,
        "component": end.workload.name if end.workload else None,
    }


def _answer_out(answer: Explanation) -> dict[str, Any]:
    return {
        "allowed": answer.allowed,
        "verdict": answer.verdict,
        "reason": answer.reason,
        "rule": answer.rule,
        "sentence": answer.sentence,
        "fix": answer.fix,
        "via_gateway": answer.via_gateway,
        "endpoint": answer.endpoint or None,
        "port": answer.port or None,
        "protocol": answer.protocol or None,
    }


@router.get(
    f"{_CELL}/learn", operation_id="learn", summary="Connections that what was refused or audited would need"
)
def learn(
    request: HttpRequest, tenant: str, project: str, environment: str, hours: int = 24
) -> dict[str, Any]:
    cell = get_cell(actor_of(request), tenant, project, environment)
    return learning.lessons(cell, max(1, min(hours, KEPT_HOURS))).as_dict()
