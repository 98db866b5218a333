"""Whoever is called answers with its name: one thread for all sockets of a world."""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from dataplane.agent.namespaces import run_in
from tests.conformance.world import Port


class Answers:
    """TCP is greeted and closed, a datagram answered."""

    def __init__(self) -> None:
        self._selector: Any = selectors.DefaultSelector()
        self._closed = threading.Event()

    def listen(self, namespace: Path, ports: Iterable[Port], name: str) -> None:
        """Open a component's ports of both families in a namespace."""

        def open_all() -> None:
            for port in ports:
                kind = socket.SOCK_STREAM if port.is_tcp else socket.SOCK_DGRAM
                server = socket.socket(socket.AF_INET6, kind)
                server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
                server.bind(("::", port.number))
                if port.is_tcp:
                    server.listen(512)
                server.setblocking(False)
                self.register(server, name)

        run_in(namespace, open_all)

    def register(self, server: socket.socket, name: str) -> None:
        """Answer on a socket that somebody opened."""
        self._selector.register(server, selectors.EVENT_READ, (name, server.type == socket.SOCK_STREAM))

    def start(self) -> None:
        threading.Thread(target=self._answer, daemon=True).start()

    def _answer(self) -> None:
        while not self._closed.is_set():
            for key, _ in self._selector.select(0.2):
                name, is_tcp = key.data
                with contextlib.suppress(OSError):
                    if is_tcp:
                        connection, _ = key.fileobj.accept()
                        with connection:
                            connection.sendall(name.encode())
                    else:
                        _, peer = key.fileobj.recvfrom(64)
                        key.fileobj.sendto(name.encode(), peer)

    def close(self) -> None:
        self._closed.set()
        for key in list(self._selector.get_map().values()):
            key.fileobj.close()
