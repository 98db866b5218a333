"""The web process: the portal on the loopback addresses, the agents' application on a unix socket.

Both run in one event loop. The agents' socket is for the control gateway alone, which has verified
the client's certificate; it must never be reachable from a browser.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from pathlib import Path
from typing import Any

import uvicorn

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "controlplane.settings")


def _loopback(port: int) -> list[socket.socket]:
    """Listening sockets on 127.0.0.1 and, where there is IPv6, on ::1."""
    sockets = []
    for family, address in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((address, port))
        except OSError:
            listener.close()
            if family == socket.AF_INET:
                raise
            continue
        sockets.append(listener)
    return sockets


def _unix(path: Path) -> socket.socket:
    """A socket that its group (the control gateway's) may open."""
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(path))
    path.chmod(0o660)
    return listener


class _Server(uvicorn.Server):
    """Signals are handled once, for both servers."""

    @contextlib.contextmanager
    def capture_signals(self):  # type: ignore[no-untyped-def]
        yield


async def _serve() -> None:
    from infra import config as installation

    config = installation.load()
    common: dict[str, Any] = {
        "log_level": "warning",
        "access_log": False,
        "lifespan": "off",
        "server_header": False,
        "timeout_keep_alive": 30,
        "timeout_graceful_shutdown": 5,
        "proxy_headers": False,
    }
    portal = _Server(uvicorn.Config("controlplane.asgi:application", **common))
    agents = _Server(uvicorn.Config("dataplane.planes.agents_asgi:application", **common))
    servers = [portal, agents]

    def stop() -> None:
        for server in servers:
            if server.should_exit:
                server.force_exit = True
            server.should_exit = True

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    await asyncio.gather(
        portal.serve(sockets=_loopback(config.portal_port)), agents.serve(sockets=[_unix(config.web_socket)])
    )


def main() -> None:
    import uvloop

    uvloop.run(_serve())


if __name__ == "__main__":
    main()
