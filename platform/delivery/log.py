"""A deployment's log: what the pusher sees while it happens and everybody afterwards."""

from __future__ import annotations

from django.db.models import Func, IntegerField, Sum

from delivery.models import Deployment, LogChunk

LONGEST = 64 * 1024
#: Bytes of builds' output in one log, whatever builders send.
MOST_OUTPUT = 16 * 2**20


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


def output(deployment: Deployment, text: str) -> None:
    """Add what a build wrote, as long as there is room; that there is none any more is said once."""
    # Unlike the number of characters, the number of bytes is known without reading the text.
    size = Func("text", function="octet_length", output_field=IntegerField())
    written = deployment.log.aggregate(size=Sum(size))["size"] or 0
    if written < MOST_OUTPUT:
        write(deployment, text)
        if written + len(text[:LONGEST].encode()) >= MOST_OUTPUT:
            say(deployment, "The build goes on; more of its output isn't kept")
