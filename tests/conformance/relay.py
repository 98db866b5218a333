"""The least that a gateway does: accept at a listener, dial from the cluster's source.

The conformance test is about the kernel's verdicts on gateway traffic; the real gateway's own
behaviour is tested where the gateway is.
"""

from __future__ import annotations

import contextlib
import random
import socket
import threading
from collections.abc import Callable
from pathlib import Path

from cells.boundary.model import Boundary, Cluster, Topology
from dataplane.agent.namespaces import run_in

#: Who is meant, by what the client says first; a listener of one connection doesn't ask.
Choice = Callable[[str], Cluster | None]


def _here(_: str) -> Path | None:
    return None


class Relay:
    """``namespace`` is the gateway's. ``beyond`` names the namespace of another node's gateway for a backend
    there, which is dialled from it."""

    def __init__(
        self,
        namespace: Path,
        boundary: Boundary,
        topology: Topology,
        beyond: Callable[[str], Path | None] = _here,
    ) -> None:
        self._namespace, self._beyond = namespace, beyond
        self._sockets: list[socket.socket] = []
        clusters = {cluster.name: cluster for cluster in boundary.clusters}
        routes = {route.host: clusters[route.cluster] for route in boundary.routes}
        for listener in boundary.listeners:
            for address in (listener.address4, listener.address6):
                self._open(address, listener.port, _always(clusters[listener.cluster]), asks=False)
        for door in boundary.doors:
            known = {host: routes[host] for host in door.hosts if host in routes}
            for address in (door.address4, door.address6):
                self._open(address, door.port, known.get, asks=True)
        for address in (topology.north4, topology.north6):
            self._open(address, topology.north_port, routes.get, asks=True)

    def _open(self, address: str, port: int, choose: Choice, *, asks: bool) -> None:
        def listen() -> socket.socket:
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            server = socket.socket(family, socket.SOCK_STREAM)
            server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            server.bind((address, port))
            server.listen(128)
            return server

        server = run_in(self._namespace, listen)
        self._sockets.append(server)

        def serve() -> None:
            # The whole thread lives in the namespace: what it dials leaves from there.
            def loop() -> None:
                with contextlib.suppress(OSError):
                    while True:
                        client, _ = server.accept()
                        with client, contextlib.suppress(OSError):
                            client.settimeout(1)
                            cluster = choose(client.recv(256).decode() if asks else "")
                            if cluster is not None:
                                self._forward(client, cluster)

            run_in(self._namespace, loop)

        threading.Thread(target=serve, daemon=True).start()

    def _forward(self, client: socket.socket, cluster: Cluster) -> None:
        if not cluster.backends:
            return
        owner, address, port = random.choice(cluster.backends)

        def dial() -> bytes:
            with socket.create_connection(
                (address, port), timeout=1, source_address=(cluster.source4, 0)
            ) as upstream:
                return upstream.recv(64)

        beyond = self._beyond(owner)
        client.sendall(run_in(beyond, dial) if beyond else dial())

    def close(self) -> None:
        for server in self._sockets:
            with contextlib.suppress(OSError):
                server.shutdown(socket.SHUT_RDWR)
            server.close()


def _always(cluster: Cluster) -> Choice:
    return lambda _: cluster
