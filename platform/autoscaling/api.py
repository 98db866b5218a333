"""REST API of what scales."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest
from ninja import Router

from autoscaling import queries
from projects.queries import get_cell
from tenants.api import actor_of

router = Router()


@router.get(
    "/tenants/{tenant}/projects/{project}/environments/{environment}/scale",
    operation_id="get_scale",
    summary="Numbers of replicas, and how those that follow load were decided",
)
def read_scale(request: HttpRequest, tenant: str, project: str, environment: str) -> list[dict[str, Any]]:
    cell = get_cell(actor_of(request), tenant, project, environment)
    return queries.scale(cell)
