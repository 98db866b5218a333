"""A component's limits of the network for its page."""

from __future__ import annotations

from dataclasses import dataclass

from cells.specification import Specification
from dataplane.planes import network
from projects.models import Cell


@dataclass(frozen=True)
class Limits:
    """Bandwidth as text, "" for no limit. ``open`` is None where the nodes say nothing of it."""

    bandwidth_in: str
    bandwidth_out: str
    per_second: int
    most: int
    open: int | None


def limits_of(cell: Cell, component: str) -> Limits | None:
    """None for a component that doesn't serve."""
    if cell.serving_release is None:
        return None
    found = network.in_force(cell, Specification.from_dict(cell.serving_release.specification)).get(component)
    if found is None:
        return None
    return Limits(
        _bandwidth(found["bandwidth_in"]),
        _bandwidth(found["bandwidth_out"]),
        found["connections_per_second"] or 0,
        found["connections"] or 0,
        found["connections_open"],
    )


def _bandwidth(bits: int | None) -> str:
    return f"{bits / 10**6:g} Mbit/s" if bits else ""
