"""What runs of one cell, as its plane's desired state has it, with the variables filled in."""

from __future__ import annotations

from typing import Any

from dataplane.planes import documents, ranges, reading, snapshots
from dataplane.planes.models import Plane


def of_cell(plane: Plane, number: int) -> tuple[dict[str, Any], ...]:
    """The entries of the cell's replicas, from the rows of this moment. They hold secrets."""
    rows = reading.read(plane, {number})
    entries = documents.endpoints(rows, ranges.config_of(plane)).get(number, [])
    return tuple(snapshots.fill({str(number): {"endpoints": entries}})[str(number)]["endpoints"])
