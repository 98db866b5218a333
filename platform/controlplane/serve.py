"""The web process: the portal on its addresses, the agents' application on a unix socket.

Both run in one event loop. The agents' socket is for the control gateway alone, which has verified
the client's certificate; it must never be reachable from a browser.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import signal
import socket
from pathlib import Path
from typing import Any

import uvicorn

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "controlplane.settings")
log = logging.getLogger("cytoplane.serve")
#: How often it is looked whether the certificate is due.
CERTIFICATE_SECONDS = 3600.0


def _listeners(addresses: list[str], port: int) -> list[socket.socket]:
    """Listening sockets on those of the addresses that there are. Raises ``OSError`` if that is none."""
    sockets, failed = [], OSError(errno.EADDRNOTAVAIL, "there is no address to listen on")
    for address in addresses:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        try:
            listener = socket.socket(family, socket.SOCK_STREAM)
        except OSError as error:
            failed = error
            continue
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        try:
            listener.bind((address, port))
        except OSError as error:
            listener.close()
            # Machines without IPv6 are common; a port that somebody else has is an error.
            if error.errno == errno.EADDRINUSE:
                raise
            failed = error
            continue
        sockets.append(listener)
    if not sockets:
        raise failed
    return sockets


def _unix(path: Path) -> socket.socket:
    """A socket that its group (the control gateway's) may open."""
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(path))
    path.chmod(0o660)
    return listener


async def _certificates() -> None:
    """Keep the certificate of the gateway beside this process in force: it must never be without one."""
    from dataplane.planes import server_certificate

    while True:
        try:
            await asyncio.to_thread(server_certificate.renew)
        except (OSError, ValueError):
            log.exception("the agents' listener gets no new certificate")
        await asyncio.sleep(CERTIFICATE_SECONDS)


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
    certificates = asyncio.create_task(_certificates())
    await asyncio.gather(
        portal.serve(sockets=_listeners(config.portal_addresses, config.portal_port)),
        agents.serve(sockets=[_unix(config.web_socket)]),
    )
    certificates.cancel()


def main() -> None:
    import uvloop

    uvloop.run(_serve())


if __name__ == "__main__":
    main()
