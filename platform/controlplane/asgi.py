"""The ASGI application behind the portal's port: git by its own protocol, everything else by Django."""

import os

from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "controlplane.settings")
_application = get_asgi_application()

from controlplane.bodies import bounded  # noqa: E402
from delivery.git.asgi import GitApplication  # noqa: E402  models need Django to be set up

_git = GitApplication()
_django = bounded(_application, for_programs=lambda scope: scope["path"].startswith("/api/"))


async def application(scope, receive, send) -> None:  # type: ignore[no-untyped-def]
    """Choose by path; git bounds what it takes itself."""
    if scope["type"] == "http" and scope["path"].startswith("/git/"):
        await _git(scope, receive, send)
        return
    await _django(scope, receive, send)
