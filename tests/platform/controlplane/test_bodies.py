"""No listener reads a body to its end that is too large, whether or not it tells its length."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from django.core.exceptions import RequestAborted

from controlplane.asgi import application as portal
from controlplane.bodies import LARGEST_BODY
from dataplane.planes.agents_asgi import application as agents

PIECE = 2**20
#: Enough to see that somebody reads on.
MOST = 4 * LARGEST_BODY


def sent(application: Any, path: str, headers: list[tuple[bytes, bytes]]) -> tuple[int, list[dict[str, Any]]]:
    """Bytes that were read of an endless body, and the answer."""
    read, answer = 0, []

    async def receive() -> dict[str, Any]:
        nonlocal read
        read += PIECE
        return {"type": "http.request", "body": b"x" * PIECE, "more_body": read < MOST}

    async def send(message: dict[str, Any]) -> None:
        answer.append(message)

    scope = {"type": "http", "method": "POST", "path": path, "raw_path": path.encode(), "query_string": b"",
             "http_version": "1.1", "scheme": "http", "server": ("localhost", 80), "root_path": "",
             "client": ("127.0.0.1", 1), "headers": [(b"host", b"localhost"), *headers]}  # fmt: skip

    async def ask() -> None:
        try:
            await application(scope, receive, send)
        except RequestAborted:
            pass

    asyncio.run(ask())
    return read, answer


@pytest.mark.parametrize(("application", "path"), [(portal, "/api/v1/tokens"), (agents, "/enrol")])
def test_a_body_without_a_length_is_read_no_further_than_to_the_bound(application: Any, path: str) -> None:
    read, _ = sent(application, path, [])
    assert LARGEST_BODY < read <= LARGEST_BODY + PIECE


def test_a_node_that_tells_too_much_is_told_so_before_anything_is_read() -> None:
    length = str(LARGEST_BODY + 1).encode()
    read, (start, _) = sent(agents, "/agent/report", [(b"content-length", length)])
    assert (read, start["status"]) == (0, 413)
    assert dict(start["headers"])[b"content-type"] == b"application/json"
