"""Server-sent events: async streams that hold no database connection while they wait."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

from django.http import StreamingHttpResponse

from controlplane.errors import CytoplaneError
from dataplane.planes.polling import query as read

#: A stream ends after this many seconds and the browser comes back.
LIFE = 240.0
#: Seconds between two pings; rights are checked again with each.
PING = 10.0


def event(name: str, data: Any = None, event_id: str = "") -> bytes:
    """One event on the wire."""
    lines = [f"id: {event_id}"] if event_id else []
    lines += [f"event: {name}", f"data: {json.dumps(data, separators=(',', ':'))}", "", ""]
    return "\n".join(lines).encode()


def response(events: AsyncIterator[bytes]) -> StreamingHttpResponse:
    """The stream as an answer that no proxy holds back."""
    answer = StreamingHttpResponse(events, content_type="text/event-stream")
    answer["X-Accel-Buffering"] = "no"
    answer["Cache-Control"] = "no-store"
    return answer


async def ticks(interval: float, check: Callable[[], Any]) -> AsyncIterator[bool]:
    """Beats until the stream's life is over; true where a ping is due.

    ``check`` looks again whether the stream may go on; an error of the catalogue ends it.
    """
    end = time.monotonic() + LIFE
    pinged = time.monotonic() - PING
    while time.monotonic() < end:
        due = time.monotonic() - pinged >= PING
        if due:
            pinged = time.monotonic()
            try:
                await read(check)
            except CytoplaneError:
                return
        yield due
        await asyncio.sleep(interval)
