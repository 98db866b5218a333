"""What the pages of runs say beside the runs themselves."""

from __future__ import annotations

from projects.models import Cell
from web import specification

KIND_WORDS = {"once": "asked for", "cron": "by its schedule", "job": "by a deployment"}
#: Kinds of components that run and end.
TASKS = ("cron", "job")


def runnable(cell: Cell) -> list[str]:
    """Components of the serving release that end by themselves, so that they can be run as they are."""
    return sorted(name for name, spec in _components(cell).items() if spec.kind in TASKS)


def example(cell: Cell) -> str:
    """A component to name in a command."""
    return next(iter(sorted(_components(cell))), "web")


def _components(cell: Cell) -> dict[str, specification.Component]:
    release = cell.serving_release
    return specification.components(release.specification if release else None)
