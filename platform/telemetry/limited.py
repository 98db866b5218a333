"""Packets above a component's limit: whose it is, how large, and what to write to have more."""

from __future__ import annotations

from typing import Any

from cells.boundary import Explanation
from cells.boundary.model import Topology, Workload
from tenants.models import Plan

_EGRESS = 0
REASONS = frozenset({"BANDWIDTH", "RATE", "CONNECTIONS"})
_MBIT = 10**6


def explained(
    topology: Topology, tenant: int, plan: Plan, rows: list[dict[str, Any]]
) -> dict[int, Explanation]:
    """Position of a row → its explanation, for rows of the tenant's own components that were above a limit."""
    known = topology.by_identity()
    found = {}
    for number, row in enumerate(rows):
        if row["reason"] not in REASONS:
            continue
        # A flow is noted as the end sees it whose limit it is: it began there, or it came there.
        cell, workload = known.get(
            row["source" if row["direction"] == _EGRESS else "destination"], (None, None)
        )
        if cell is not None and workload is not None and cell.tenant == tenant:
            found[number] = _explanation(row["reason"], workload, plan)
    return found


def _explanation(reason: str, workload: Workload, plan: Plan) -> Explanation:
    out_bytes, in_bytes, per_second, open_ = workload.limits
    if reason == "BANDWIDTH":
        said = [f"{way} {_rate(size * 8)}" for way, size in (("out", out_bytes), ("in", in_bytes)) if size]
        sentence = f"`{workload.name}` is at its bandwidth: {', '.join(said)}."
        wanted = {
            name: f"{value / _MBIT:g}M"
            for name, size in (("bandwidth_out", out_bytes), ("bandwidth_in", in_bytes))
            for value in _more(name, size * 8, plan.bandwidth_mbit * _MBIT).values()
        }
    elif reason == "RATE":
        sentence = f"`{workload.name}` is at its {per_second} new connections per second."
        wanted = _more("connections_per_second", per_second, plan.connections_per_second)
    else:
        sentence = f"`{workload.name}` has its {open_} connections open."
        wanted = _more("connections", open_, plan.connections)
    if not wanted:
        return Explanation(False, reason, 0, f"{sentence} That is the plan's ceiling.")
    values = ", ".join(f"{key}: {value}" for key, value in wanted.items())
    return Explanation(
        False, reason, 0, sentence, f"components:\n  {workload.name}:\n    limits: {{{values}}}"
    )


def _more(name: str, most: int, ceiling: int) -> dict[str, Any]:
    """Twice as many, as far as the plan allows it."""
    if not most or (ceiling and most >= ceiling):
        return {}
    return {name: min(2 * most, ceiling or 2 * most)}


def _rate(bits: int) -> str:
    return f"{bits / _MBIT:g} Mbit/s"
