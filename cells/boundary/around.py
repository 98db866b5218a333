"""Who is who among cells, and whose declarations reach whom: what a cell's part of the tables depends on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from cells.boundary.audit import reachable
from cells.boundary.model import Cell, Workload


class Around:
    """Cells by what others look them up by. Kept up to date one cell at a time."""

    def __init__(self, cells: Iterable[Cell] = ()) -> None:
        self.cells: dict[int, Cell] = {}
        self._workloads: dict[int, tuple[Cell, Workload]] = {}
        #: Identity of a provider → identities of those who declare connections to it.
        self._consumers: dict[int, dict[int, None]] = {}
        #: (tenant, environment) → numbers of its cells in audit, and of those which they could reach.
        self._audited: dict[tuple[int, str], dict[int, None]] = {}
        self._reachable: dict[tuple[int, str], dict[int, None]] = {}
        for cell in cells:
            self.put(cell)

    def put(self, cell: Cell) -> None:
        """Take in a cell, in place of the one that had its number."""
        self.drop(cell.number)
        self.cells[cell.number] = cell
        place = (cell.tenant, cell.environment)
        if cell.audit:
            self._audited.setdefault(place, {})[cell.number] = None
        if reachable(cell):
            self._reachable.setdefault(place, {})[cell.number] = None
        for workload in cell.workloads:
            self._workloads[workload.identity] = (cell, workload)
            for connection in workload.connections:
                if connection.external is None:
                    self._consumers.setdefault(connection.provider, {})[workload.identity] = None

    def drop(self, number: int) -> None:
        """Forget a cell."""
        cell = self.cells.pop(number, None)
        if cell is None:
            return
        for places in (self._audited, self._reachable):
            known = places.get((cell.tenant, cell.environment), {})
            known.pop(number, None)
            if not known:
                places.pop((cell.tenant, cell.environment), None)
        for workload in cell.workloads:
            del self._workloads[workload.identity]
            for connection in workload.connections:
                callers = self._consumers.get(connection.provider, {})
                callers.pop(workload.identity, None)
                if not callers:
                    self._consumers.pop(connection.provider, None)

    def workload(self, identity: int) -> tuple[Cell, Workload] | None:
        """Whom an identity belongs to."""
        return self._workloads.get(identity)

    def consumers(self, provider: int) -> Iterator[tuple[Cell, Workload]]:
        """Everybody who declares a connection to a workload, in one order whatever came first."""
        for identity in sorted(self._consumers.get(provider, ())):
            yield self._workloads[identity]

    def audited(self, cell: Cell) -> Iterator[Cell]:
        """Cells in audit in the cell's surroundings, itself or not."""
        for number in sorted(self._audited.get((cell.tenant, cell.environment), ())):
            yield self.cells[number]

    def reachable(self, cell: Cell) -> Iterator[Cell]:
        """Cells in its surroundings that declare anything to others, itself or not."""
        for number in sorted(self._reachable.get((cell.tenant, cell.environment), ())):
            yield self.cells[number]

    def of(self, cell: Cell) -> set[int]:
        """Numbers of the other cells which its part depends on, and whose parts depend on it."""
        found = set()
        for workload in cell.workloads:
            found |= {other.number for other, _ in self.consumers(workload.identity)}
            for connection in workload.connections:
                provider = self._workloads.get(connection.provider)
                if provider is not None:
                    found.add(provider[0].number)
        if reachable(cell):
            found |= {other.number for other in self.audited(cell)}
        if cell.audit:
            found |= {other.number for other in self.reachable(cell)}
        return found - {cell.number}
