"""The ASGI application behind the portal's port: git by its own protocol, everything else by Django."""

import json
import os
import secrets

from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "controlplane.settings")
_django = get_asgi_application()

from controlplane.errors import CytoplaneError  # noqa: E402
from delivery.git.asgi import GitApplication  # noqa: E402  models need Django to be set up

_git = GitApplication()
#: Bodies of anything but git; forms and API documents are small.
LARGEST_BODY = 4 * 2**20


async def application(scope, receive, send) -> None:  # type: ignore[no-untyped-def]
    """Choose by path; bodies are bounded before anybody reads them."""
    if scope["type"] == "http" and scope["path"].startswith("/git/"):
        await _git(scope, receive, send)
        return
    length = dict(scope.get("headers", [])).get(b"content-length", b"0")
    too_large = not length.isdigit() or int(length) > LARGEST_BODY
    if too_large:
        error = CytoplaneError("too-large", limit="4 MiB")
        body, kind = f"{error.message}\n".encode(), b"text/plain"
        if scope["path"].startswith("/api/"):
            body, kind = json.dumps(error.as_dict(secrets.token_hex(8))).encode(), b"application/json"
        await send({"type": "http.response.start", "status": 413, "headers": [(b"content-type", kind)]})
        await send({"type": "http.response.body", "body": body})
        return
    read = 0

    async def bounded():  # type: ignore[no-untyped-def]
        nonlocal read
        message = await receive()
        read += len(message.get("body", b""))
        return {"type": "http.disconnect"} if read > LARGEST_BODY else message

    await _django(scope, bounded, send)
