"""What components declare of their network, and what their plan allows, as the compiler takes it."""

from __future__ import annotations

from collections.abc import Iterable

from cells.boundary import model
from cells.specification import Component
from delivery.models import Release, Replica
from tenants.models import Plan

_MBIT = 10**6


def limits(component: Component, plan: Plan) -> model.Limits:
    """What is in force: what is declared, never more than the plan's; 0 is no limit in both."""
    declared, most = component.limits, plan.bandwidth_mbit * _MBIT
    return (
        _least(declared.bandwidth_out, most) // 8,
        _least(declared.bandwidth_in, most) // 8,
        _least(declared.connections_per_second, plan.connections_per_second),
        _least(declared.connections, plan.connections),
    )


def _least(declared: int, most: int) -> int:
    return min(declared or most, most or declared)


def weights(replicas: Iterable[Replica]) -> dict[int, int]:
    """Replica → its share: the CPU that its release gives it, in hundredths of a core. One query."""
    rows = list(replicas)
    documents = dict(
        Release.objects.filter(pk__in={row.release_id for row in rows}).values_list("pk", "specification")
    )
    found = {}
    for row in rows:
        declared = documents[row.release_id]["components"].get(row.workload.component.name)
        found[row.pk] = max(1, round(declared["limits"]["cpu"] * 100)) if declared else 1
    return found
