"""Who answers in pods' namespaces, and who keeps a connection to somebody there."""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dataplane.agent.namespaces import run_in
from tests.dataplane.agent.agents import listening


@dataclass
class Server:
    """Answers in pods' namespaces with their names."""

    selector: selectors.BaseSelector = field(default_factory=selectors.DefaultSelector)
    closed: threading.Event = field(default_factory=threading.Event)

    def start(self) -> None:
        threading.Thread(target=self._answer, daemon=True).start()

    def open(self, path: Path, name: str, tcp: Sequence[int], udp: Sequence[int]) -> None:
        """Listen in a namespace on these ports of both families."""

        def listen() -> None:
            for kind, ports in ((socket.SOCK_STREAM, tcp), (socket.SOCK_DGRAM, udp)):
                for port in ports:
                    made = listening(kind, port)
                    made.setblocking(False)
                    self.selector.register(made, selectors.EVENT_READ, name)

        run_in(path, listen)

    def _answer(self) -> None:
        while not self.closed.is_set():
            for key, _ in self.selector.select(0.1):
                server: Any = key.fileobj
                with contextlib.suppress(OSError):
                    if server.type == socket.SOCK_STREAM:
                        connection, _ = server.accept()
                        threading.Thread(target=self._serve, args=(connection, key.data), daemon=True).start()
                    else:
                        _, peer = server.recvfrom(64)
                        server.sendto(key.data.encode(), peer)

    def _serve(self, connection: socket.socket, name: str) -> None:
        """Its name first, then whatever is said again."""
        with connection, contextlib.suppress(OSError):
            connection.sendall(name.encode())
            while data := connection.recv(4096):
                connection.sendall(data)

    def forget(self, name: str) -> None:
        for key in [key for key in list(self.selector.get_map().values()) if key.data == name]:
            self.selector.unregister(key.fileobj)
            key.fileobj.close()  # type: ignore[union-attr]

    def close(self) -> None:
        self.closed.set()
        for key in list(self.selector.get_map().values()):
            key.fileobj.close()  # type: ignore[union-attr]


class Kept:
    """An open connection to somebody who says what is said to him."""

    def __init__(self, path: Path, target: tuple[str, int]) -> None:
        self._socket = run_in(path, lambda: socket.create_connection(target, timeout=3))
        self._socket.settimeout(3)
        self._socket.recv(64)  # the name

    def ask(self, text: str) -> str:
        try:
            self._socket.sendall(text.encode())
            return self._socket.recv(4096).decode()
        except OSError:
            return ""

    def ended(self) -> bool:
        """Whether it was ended, not only silenced."""
        self._socket.setblocking(False)
        try:
            self._socket.send(b"?")
            return not self._socket.recv(64)
        except BlockingIOError:
            return False
        except OSError:
            return True

    def close(self) -> None:
        self._socket.close()
