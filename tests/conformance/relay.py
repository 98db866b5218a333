"""The least that a gateway does: accept at a connection's listener, dial from the cluster's source.

The conformance test is about the kernel's verdicts on gateway traffic; the real gateway's own
behaviour is tested where the gateway is.
"""

from __future__ import annotations

import contextlib
import socket
import threading

from cells.boundary.model import Boundary
from dataplane.agent.namespaces import run_in
from dataplane.agent.network import Namespace


class Relay:
    def __init__(self, namespace: Namespace, boundary: Boundary) -> None:
        self._sockets: list[socket.socket] = []
        clusters = {cluster.name: cluster for cluster in boundary.clusters}
        for listener in boundary.listeners:
            cluster = clusters[listener.cluster]
            for address in (listener.address4, listener.address6):
                self._open(namespace, address, listener.port, cluster.source4, cluster.backends[0][1:])

    def _open(
        self, namespace: Namespace, address: str, port: int, source: str, target: tuple[str, int]
    ) -> None:
        def listen() -> socket.socket:
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            server = socket.socket(family, socket.SOCK_STREAM)
            server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            server.bind((address, port))
            server.listen(64)
            return server

        server = run_in(namespace.path, listen)
        self._sockets.append(server)

        def serve() -> None:
            # The whole thread lives in the namespace: what it dials leaves from there.
            def loop() -> None:
                with contextlib.suppress(OSError):
                    while True:
                        client, _ = server.accept()
                        with client, contextlib.suppress(OSError):
                            upstream = socket.create_connection(target, timeout=1, source_address=(source, 0))
                            with upstream:
                                client.sendall(upstream.recv(64))

            run_in(namespace.path, loop)

        threading.Thread(target=serve, daemon=True).start()

    def close(self) -> None:
        for server in self._sockets:
            with contextlib.suppress(OSError):
                server.shutdown(socket.SHUT_RDWR)
            server.close()
