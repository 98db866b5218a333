"""Refused and audited calls with the rule that would have had to allow them, by asking the compiler.

The kernel knows the rule of what it allows. Which declaration is missing for what it refuses only the
compiler can say, and it says the same here as for ``why``.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import Any

from cells.boundary import Explanation, explain
from cells.boundary.ends import BY_ADDRESS, STRANGER, End, of_identity
from cells.boundary.model import ALLOW, DENY, RULE_FLOOR, Topology
from dataplane import addresses
from dataplane.planes import snapshots
from dataplane.planes.models import Plane
from projects.models import Cell
from telemetry import limited

#: Verdicts that a declaration may have a part in.
_DECLARABLE = frozenset({"NO_RULE", "REVOKED", "EGRESS", "DENIED", "ICMP"})
_FLOOR = frozenset({"FLOOR", "NODE"})
_PROTOCOLS = {6: "tcp", 17: "udp", 1: "icmp", 58: "icmp"}
#: Rows that are explained in one answer; more than a person reads.
_MOST = 200


@lru_cache(maxsize=4)
def _topology(plane_id: int, generation: int) -> Topology:
    """A plane's topology; ``generation`` makes it a new one with each change."""
    return snapshots.topology(Plane.objects.get(pk=plane_id))


def explained(cell: Cell, rows: list[dict[str, Any]]) -> dict[int, Explanation]:
    """Position of a refused or audited row → its explanation, for rows that have one."""
    plane = cell.environment.plane
    wanted = [n for n, row in enumerate(rows) if row["verdict"] != ALLOW and row["reason"] in _DECLARABLE]
    found: dict[int, Explanation] = {
        n: Explanation(False, row["reason"], RULE_FLOOR, "", "")
        for n, row in enumerate(rows)
        if row["verdict"] == DENY and row["reason"] in _FLOOR
    }
    above = plane is not None and any(row["reason"] in limited.REASONS for row in rows)
    if plane is None or not (wanted or above):
        return found
    known = Known(plane, cell)
    if above:
        tenant = cell.project.tenant
        found |= limited.explained(known.topology, tenant.pk, tenant.plan, rows)
    for number in wanted[:_MOST]:
        answer = known.explain(rows[number])
        if answer is not None and not answer.allowed:
            found[number] = answer
    return found


class Known:
    """A plane's declarations, for explaining what the nodes saw to the tenant of a cell."""

    def __init__(self, plane: Plane, cell: Cell) -> None:
        self.topology = _topology(plane.pk, plane.generation)
        self._tenant = cell.project.tenant_id
        self._own = {w.identity for c in self.topology.cells if c.tenant == self._tenant for w in c.workloads}

    def explain(self, row: dict[str, Any]) -> Explanation | None:
        """The declarations' answer to a call that was seen; None where nothing can be said of it."""
        protocol = _PROTOCOLS.get(row["protocol"])
        source, destination = row["source"], row["destination"]
        # A stranger's call is explained to nobody but the stranger: the sentence has its names.
        if protocol is None or source not in self._own:
            return None
        target: str | End
        if destination == addresses.IDENTITY_WORLD or (destination == 0 and row["reason"] == "EGRESS"):
            target = row["remote"]
        else:
            try:
                # What is seen is on the wire, where a component is an address of one of its replicas.
                target = replace(of_identity(self.topology, destination), way=BY_ADDRESS)
            except KeyError:
                return None
            if target.cell is not None and target.cell.tenant != self._tenant:
                target = End(STRANGER, STRANGER)
        if not target or not (row["port"] or protocol == "icmp"):  # others, together in one row
            return None
        try:
            return explain(self.topology, source, target, row["port"], protocol)
        except (KeyError, ValueError):
            return None
