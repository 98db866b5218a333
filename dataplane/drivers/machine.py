"""The machine's driver: a cell there needs no place of its own before its first replica.

A machine pulls desired state, which says everything about a cell; its node agent makes a namespace
for each replica and takes it away with it. Ensuring and removing therefore mean that desired state
is made anew, which whoever makes the driver hands in.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dataplane.drivers.interface import CellState, CellStatus, PlacedCell


class Machine:
    """``publish`` makes the plane's desired state anew and returns its number."""

    def __init__(self, publish: Callable[[], int]) -> None:
        self._publish = publish

    def ensure(self, cell: PlacedCell) -> CellStatus:
        return CellStatus(CellState.READY, self._publish())

    def status(self, cell: PlacedCell) -> CellStatus:
        return CellStatus(CellState.READY)

    def remove(self, cell: PlacedCell) -> CellStatus:
        return CellStatus(CellState.ABSENT, self._publish())

    def reports(self, cell: PlacedCell, before: dict[str, str]) -> list[dict[str, Any]]:
        """Nothing: the node's agent reports itself."""
        return []
