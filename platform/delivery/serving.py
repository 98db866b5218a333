"""The cell that a transaction works on, and what serves in it."""

from __future__ import annotations

from controlplane.errors import CytoplaneError
from delivery.models import Release
from projects.models import Cell


def locked_cell(cell_id: int) -> Cell:
    """The cell's row with what most work on it needs, locked until the transaction ends."""
    # Apart from what is read with it: after waiting, one query would join the new row with what the old one named.
    Cell.objects.select_for_update(no_key=True).only("pk").get(pk=cell_id)
    return Cell.objects.select_related("project__tenant", "environment__plane", "serving_release").get(
        pk=cell_id
    )


def serving_release(cell: Cell) -> Release:
    """What serves there. Raises `nothing-released`."""
    if cell.serving_release is None:
        raise CytoplaneError("nothing-released", cell=str(cell))
    return cell.serving_release
