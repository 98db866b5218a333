"""A deployment's log: what the pusher sees while it happens and everybody afterwards."""

from __future__ import annotations

from delivery.models import Deployment, LogChunk

LONGEST = 64 * 1024


def say(deployment: Deployment, text: str) -> None:
    """Add a line of the platform's own."""
    write(deployment, f"-----> {text}\n")


def detail(deployment: Deployment, text: str) -> None:
    """Add a line below the last ``say``."""
    write(deployment, f"       {text}\n")


def write(deployment: Deployment, text: str) -> None:
    """Add text as it came from a build or a process."""
    if text:
        # PostgreSQL's text holds no zero bytes.
        LogChunk.objects.create(deployment=deployment, text=text.replace("\0", "\ufffd")[:LONGEST])
