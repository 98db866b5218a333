"""A plane that is compiled once and then followed: a change costs what it reaches, not what there is.

The union of the parts is always what ``compile_topology`` would make of all cells.
"""

from __future__ import annotations

from dataclasses import replace

from cells.boundary.around import Around
from cells.boundary.compiler import compile_cell, compile_platform
from cells.boundary.model import Boundary, Cell, Topology

#: The part that is no cell's; cells have their numbers.
PLATFORM = 0


def as_provider(cell: Cell | None) -> Cell | None:
    """What the parts of others see of a cell that they call; without replicas, whose part is its own."""
    return cell and replace(
        cell, strict=False, workloads=tuple(replace(w, connections=(), replicas=()) for w in cell.workloads)
    )


def as_consumer(cell: Cell | None) -> Cell | None:
    """What the parts of others see of a cell that calls them."""
    return cell and replace(
        cell,
        strict=False,
        workloads=tuple(
            replace(
                w, endpoints=(), replicas=(), connections=tuple(c for c in w.connections if not c.external)
            )
            for w in cell.workloads
        ),
    )


def faces(cell: Cell | None) -> tuple[Cell | None, Cell | None]:
    """All that others' parts are made of. While it stays, a change is the cell's own."""
    return as_provider(cell), as_consumer(cell)


class Incremental:
    """The parts of a plane, kept up to date."""

    def __init__(self, topology: Topology) -> None:
        self._platform = replace(topology, cells=())
        self._around = Around(topology.cells)
        self.parts: dict[int, Boundary] = {PLATFORM: compile_platform(self._platform)}
        for cell in topology.cells:
            self._compile(cell)

    def _compile(self, cell: Cell) -> bool:
        """Compile a cell's part; whether it differs from what it was."""
        made = compile_cell(self._platform, cell, self._around)
        if self.parts.get(cell.number) == made:
            return False
        self.parts[cell.number] = made
        return True

    def change(self, cell: Cell) -> set[int]:
        """A cell is new or other than before; the numbers of the parts that differ now."""
        return self._changed(cell.number, cell)

    def remove(self, number: int) -> set[int]:
        """A cell is gone; the numbers of the parts that differ now."""
        return self._changed(number, None)

    def _changed(self, number: int, cell: Cell | None) -> set[int]:
        before = self._around.cells.get(number)
        reached: set[int] = set()
        own = faces(before) == faces(cell)
        if before is not None and not own:
            reached |= self._around.of(before)
        if cell is not None:
            self._around.put(cell)
        else:
            self._around.drop(number)
        if cell is not None and not own:
            reached |= self._around.of(cell)
        differing = {other for other in reached if self._compile(self._around.cells[other])}
        if cell is None:
            return differing | ({number} if self.parts.pop(number, None) is not None else set())
        return differing | ({number} if self._compile(cell) else set())

    def boundary(self) -> Boundary:
        """The whole plane."""
        whole = Boundary()
        for number in sorted(self.parts):
            whole.add(self.parts[number])
        return whole
