"""What prepares a cell's place on a data plane: one interface, an implementation for each engine.

Drivers get values and give values. They know no rows, no settings and no tasks: who calls them
decides when, records what came of it and holds that a cell is never worked on twice at once.
"""

from dataplane.drivers.interface import (
    CellState,
    CellStatus,
    Denied,
    Driver,
    DriverError,
    PlacedCell,
    Quota,
    Rejected,
    Taken,
    Unreachable,
    location_for,
)

__all__ = [
    "CellState",
    "CellStatus",
    "Denied",
    "Driver",
    "DriverError",
    "PlacedCell",
    "Quota",
    "Rejected",
    "Taken",
    "Unreachable",
    "location_for",
]
