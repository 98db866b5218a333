"""Sessions that nobody asks about any more."""

from __future__ import annotations

from controlplane.celery import app
from execution import actions


@app.task(name="execution.sweep")
def sweep() -> None:
    """End them, and forget old records."""
    actions.sweep()
