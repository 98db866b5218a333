"""The socket on which the CNI plugin asks: one question a connection, a bounded number at a time."""

from __future__ import annotations

import json
import logging
import os
import socket
import struct
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

log = logging.getLogger("cytoplane.agent")
#: Answered at a time, and waiting besides. Whoever comes in excess hears nothing and tries again.
WORKERS, WAITING = 32, 96
_LARGEST = 1024 * 1024
_SECONDS = 5.0

#: A question to its answer: None agrees, a sentence refuses.
Answer = Callable[[dict[str, Any]], str | None]


class Server:
    """Only root asks: the folder and the socket are root's, and the peer is looked at."""

    def __init__(self, path: Path, answer: Answer) -> None:
        self._path, self._answer = path, answer
        self._free = threading.BoundedSemaphore(WORKERS + WAITING)
        self._pool = ThreadPoolExecutor(WORKERS, thread_name_prefix="cni")
        self._socket: socket.socket | None = None

    def start(self) -> None:
        """Raises ``OSError``. A socket of an agent before this one is replaced in one step."""
        self._path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        fresh = self._path.with_name(f".{self._path.name}.new")
        fresh.unlink(missing_ok=True)
        server = socket.socket(socket.AF_UNIX)
        mask = os.umask(0o177)
        try:
            server.bind(str(fresh))
        finally:
            os.umask(mask)
        server.listen(256)
        fresh.rename(self._path)
        self._socket = server
        threading.Thread(target=self._run, name="cni", daemon=True).start()

    def close(self) -> None:
        if self._socket is not None:
            self._socket.shutdown(socket.SHUT_RDWR)
            self._socket.close()
        self._path.unlink(missing_ok=True)
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _run(self) -> None:
        assert self._socket is not None
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            if not self._free.acquire(blocking=False):
                connection.close()
                continue
            self._pool.submit(self._serve, connection)

    def _serve(self, connection: socket.socket) -> None:
        try:
            with connection:
                connection.settimeout(_SECONDS)
                if _peer(connection) != 0:
                    return
                answer = self._ask(_read(connection))
                connection.sendall(json.dumps(answer).encode())
        except (OSError, ValueError) as error:
            log.warning("a question of the CNI plugin can't be answered: %s", error)
        finally:
            self._free.release()

    def _ask(self, question: Any) -> dict[str, Any]:
        if not isinstance(question, dict):
            raise ValueError("it isn't an object")
        try:
            refused = self._answer(question)
        except Exception as error:  # the next one must be answered too
            log.exception("a question of the CNI plugin failed")
            refused = f"the node's agent failed: {error}"
        return {"allowed": True} if refused is None else {"refused": f"cytoplane: {refused}"[:900]}


def _peer(connection: socket.socket) -> int:
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    return struct.unpack("=iII", raw)[1]


def _read(connection: socket.socket) -> Any:
    text = b""
    while piece := connection.recv(65536):
        text += piece
        if len(text) > _LARGEST:
            raise ValueError("it is too long")
    return json.loads(text)
