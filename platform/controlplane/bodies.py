"""Bodies of requests are bounded before anybody reads them, whether or not their length was told.

Django looks at the length that a request tells: one without it would be read to its end first, by
whoever can reach the server.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Awaitable, Callable
from typing import Any

from controlplane.errors import CytoplaneError

#: Forms, documents of the API and reports of nodes are small.
LARGEST_BODY = 4 * 2**20
Application = Callable[..., Awaitable[None]]


def bounded(application: Application, *, for_programs: Callable[[dict[str, Any]], bool]) -> Application:
    """The application, which never gets more than ``LARGEST_BODY`` of a request.

    ``for_programs``: whether the answer to one that tells a larger length is JSON. A body that turns out
    to be larger looks like a client that went away.
    """

    async def inner(scope, receive, send) -> None:  # type: ignore[no-untyped-def]
        length = dict(scope.get("headers", [])).get(b"content-length", b"0")
        if not length.isdigit() or int(length) > LARGEST_BODY:
            await _refuse(send, for_programs(scope))
            return
        read = 0

        async def receiving():  # type: ignore[no-untyped-def]
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            return {"type": "http.disconnect"} if read > LARGEST_BODY else message

        await application(scope, receiving, send)

    return inner


async def _refuse(send, as_json: bool) -> None:  # type: ignore[no-untyped-def]
    error = CytoplaneError("too-large", limit="4 MiB")
    body, kind = f"{error.message}\n".encode(), b"text/plain"
    if as_json:
        body, kind = json.dumps(error.as_dict(secrets.token_hex(8))).encode(), b"application/json"
    await send({"type": "http.response.start", "status": error.status, "headers": [(b"content-type", kind)]})
    await send({"type": "http.response.body", "body": body})
