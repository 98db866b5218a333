"""Reads for API, CLI and portal."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from autoscaling.models import Autoscaled
from cells.specification import Scaling, Specification
from projects.models import Cell


@dataclass(frozen=True)
class State:
    """A component's range, and what was decided in it. ``figures``: cpu in percent, requests a second."""

    component: str
    scaling: Scaling
    number: int
    wanted: int
    figures: dict[str, float | None]
    looked_at: datetime | None
    why: str
    held: str
    changed_at: datetime | None
    change: str

    def as_dict(self) -> dict[str, Any]:
        return {
            "min": self.scaling.least,
            "max": self.scaling.most,
            "target": {"cpu": self.scaling.cpu or None, "requests": self.scaling.requests or None},
            "seen": {"cpu": self.figures.get("cpu"), "requests": self.figures.get("requests")},
            "wanted": self.wanted if self.looked_at else None,
            "looked_at": self.looked_at,
            "why": self.why,
            "held": self.held,
            "changed_at": self.changed_at,
            "change": self.change,
        }


def states(cell: Cell) -> dict[str, State]:
    """Component → how it follows load, of those that do."""
    if cell.serving_release is None:
        return {}
    components = Specification.from_dict(cell.serving_release.specification).components
    ranges = {name: component.scaling for name, component in components.items() if component.scaling}
    if not ranges:
        return {}
    rows = {
        row.workload.component.name: row
        for row in Autoscaled.objects.filter(workload__cell=cell).select_related("workload__component")
    }
    return {name: _state(name, scaling, rows.get(name)) for name, scaling in ranges.items()}


def _state(name: str, scaling: Scaling, row: Autoscaled | None) -> State:
    row = row or Autoscaled()
    return State(
        component=name,
        scaling=scaling,
        number=row.number,
        wanted=row.wanted,
        figures=row.figures,
        looked_at=row.looked_at,
        why=row.why,
        held=row.held,
        changed_at=row.changed_at,
        change=row.change,
    )


def scale(cell: Cell) -> list[dict[str, Any]]:
    """Components that have replicas: how many are wanted of each, and how that is decided; by name."""
    if cell.serving_release is None:
        return []
    components = Specification.from_dict(cell.serving_release.specification).components
    following = states(cell)
    return [
        {
            "component": name,
            "replicas": component.number(cell.scale.get(name)),
            "autoscaling": following[name].as_dict() if name in following else None,
        }
        for name, component in sorted(components.items())
        if component.task is None
    ]
