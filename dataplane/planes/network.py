"""What components declare of their network, and what their plan allows, as the compiler takes it."""

from __future__ import annotations

from cells.boundary import model
from cells.specification import Component, Specification
from dataplane.planes.models import Node, Plane
from delivery.models import Replica
from projects.models import Cell, Workload
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


def weight(replica: Replica) -> int:
    """Its share: the CPU that its release gives it, in hundredths of a core."""
    declared = replica.release.specification["components"].get(replica.workload.component.name)
    return max(1, round(declared["limits"]["cpu"] * 100)) if declared else 1


def in_force(cell: Cell, specification: Specification) -> dict[str, dict[str, int | None]]:
    """Component → its limits as people read them, 0 for none, and how many connections it has open.

    Bandwidth in bits per second. ``connections_open`` is the nodes' word, None where they say nothing.
    """
    plan = cell.project.tenant.plan
    identities = dict(Workload.objects.filter(cell=cell).values_list("component__name", "identity"))
    plane = cell.environment.plane
    said = _said(plane) if plane else {}
    found: dict[str, dict[str, int | None]] = {}
    for name, component in specification.components.items():
        out_bytes, in_bytes, per_second, open_ = limits(component, plan)
        found[name] = {
            "bandwidth_in": in_bytes * 8,
            "bandwidth_out": out_bytes * 8,
            "connections_per_second": per_second,
            "connections": open_,
            "connections_open": said.get(identities.get(name, 0)),
        }
    return found


def _said(plane: Plane) -> dict[int, int]:
    """Identity → open connections, as the plane's nodes report them. Untrusted: only numbers count."""
    total: dict[int, int] = {}
    for node in plane.nodes.filter(kind=Node.Kind.AGENT):
        raw = node.health.get("connections") if isinstance(node.health, dict) else None
        for identity, number in raw.items() if isinstance(raw, dict) else ():
            # Identities have 32 bits; Python refuses to read numbers of thousands of digits.
            if not (len(identity) <= 10 and identity.isascii() and identity.isdigit()):
                continue
            if type(number) is int and number >= 0:
                total[int(identity)] = total.get(int(identity), 0) + number
    return total
