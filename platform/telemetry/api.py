"""REST API of edges, logs and explanations."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest
from ninja import Router

from projects.queries import get_cell
from telemetry import queries
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
        for row in queries.log_lines(cell, component, after, limit)
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
    protocol: str = "tcp",
) -> dict[str, Any]:
    cell = get_cell(actor_of(request), tenant, project, environment)
    answer = queries.why(cell, source, destination, port, protocol)
    return {
        "allowed": answer.allowed,
        "reason": answer.reason,
        "rule": answer.rule,
        "sentence": answer.sentence,
        "fix": answer.fix,
        "via_gateway": answer.via_gateway,
    }
