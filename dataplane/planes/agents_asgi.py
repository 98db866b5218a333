"""The agents' own ASGI application: another surface of the same Django, with addresses of its own.

Only the control gateway reaches its socket. The gateway has verified the client certificate and
replaced the header that carries it.
"""

import os

from django.core.asgi import get_asgi_application

from controlplane.bodies import bounded

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "controlplane.settings")
_django = bounded(get_asgi_application(), for_programs=lambda scope: True)


async def application(scope, receive, send) -> None:  # type: ignore[no-untyped-def]
    """Mark the request as an agent's; middleware picks the addresses by that."""
    await _django({**scope, "surface": "agents"}, receive, send)
