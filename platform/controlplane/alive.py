"""Files that say that worker and beat do their work: what a probe looks at costs next to nothing.

A process that hangs, or waits for a broker that is gone, stops touching its file. Whoever watches decides
by the file's age.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from celery import bootsteps
from django.conf import settings

#: Seconds between two touches.
INTERVAL = 5.0


def file_of(part: str) -> Path:
    """The file of ``worker`` or ``beat``."""
    return settings.CONFIG.run / "web" / f"{part}.alive"


def touch(part: str) -> None:
    """Say that a part is alive. A disk that takes nothing is what the file's age then tells."""
    try:
        file_of(part).touch()
    except OSError:
        return


class WorkerAlive(bootsteps.StartStopStep):
    """Touches the worker's file from its event loop, which stands still while the broker is away."""

    requires = {"celery.worker.components:Timer"}

    def __init__(self, parent: Any, **options: Any) -> None:
        super().__init__(parent, **options)
        self._entry: Any = None

    def start(self, parent: Any) -> None:
        self._entry = parent.timer.call_repeatedly(INTERVAL, touch, ("worker",), priority=10)

    def stop(self, parent: Any) -> None:
        if self._entry is not None:
            self._entry.cancel()
