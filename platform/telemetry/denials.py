"""Refused calls with the rule that would have had to allow them, by asking the compiler.

The kernel knows the rule of what it allows. Which declaration is missing for what it refuses only the
compiler can say, and it says the same here as for ``why``.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from cells.boundary import Explanation, explain
from cells.boundary.model import RULE_FLOOR, Topology
from dataplane import addresses
from dataplane.planes import snapshots
from dataplane.planes.models import Plane
from projects.models import Cell

#: Verdicts that a declaration may have a part in.
_DECLARABLE = frozenset({"NO_RULE", "REVOKED", "EGRESS", "DENIED"})
_FLOOR = frozenset({"FLOOR", "NODE"})
_PROTOCOLS = {6: "tcp", 17: "udp"}
#: Rows that are explained in one answer; more than a person reads.
_MOST = 200


@lru_cache(maxsize=4)
def _topology(plane_id: int, generation: int) -> Topology:
    """A plane's topology; ``generation`` makes it a new one with each change."""
    return snapshots.topology(Plane.objects.get(pk=plane_id))


def explained(cell: Cell, rows: list[dict[str, Any]]) -> dict[int, Explanation]:
    """Position of a refused row → its explanation, for rows that have one."""
    plane = cell.environment.plane
    wanted = [n for n, row in enumerate(rows) if row["verdict"] == 2 and row["reason"] in _DECLARABLE]
    found: dict[int, Explanation] = {
        n: Explanation(False, row["reason"], RULE_FLOOR, "", "")
        for n, row in enumerate(rows)
        if row["verdict"] == 2 and row["reason"] in _FLOOR
    }
    if plane is None or not wanted:
        return found
    topology = _topology(plane.pk, plane.generation)
    tenant = cell.project.tenant_id
    own = {workload.identity for c in topology.cells if c.tenant == tenant for workload in c.workloads}
    known = topology.by_identity()
    for number in wanted[:_MOST]:
        answer = _explain(topology, known, own, rows[number])
        if answer is not None and not answer.allowed:
            found[number] = answer
    return found


def _explain(
    topology: Topology, known: dict[int, Any], own: set[int], row: dict[str, Any]
) -> Explanation | None:
    protocol = _PROTOCOLS.get(row["protocol"])
    source, destination = row["source"], row["destination"]
    # A stranger's call is explained to nobody but the stranger: the sentence has its names.
    if protocol is None or source not in own:
        return None
    target: int | str = destination
    if destination == addresses.IDENTITY_WORLD or (destination == 0 and row["reason"] == "EGRESS"):
        target = row["remote"]
    elif destination not in known:
        return None
    if not target or not row["port"]:  # others, together in one row
        return None
    try:
        return explain(topology, source, target, row["port"], protocol)
    except (KeyError, ValueError):
        return None
