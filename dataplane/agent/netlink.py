"""Questions to the kernel over netlink, where pyroute2 can't ask them or is slow. Layouts: ``linux/netlink.h``."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator

REQUEST, ACK, DUMP = 1, 4, 0x300
_ERROR, _DONE = 2, 3
_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")
_BUFFER = 1 << 18


class Conversation:
    """A netlink socket of the network namespace that it was opened in. Not for several threads at once."""

    def __init__(self, family: int) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, family)
        self._socket.settimeout(5)
        self._socket.bind((0, 0))

    def __enter__(self) -> Conversation:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def ask(self, kind: int, flags: int, body: bytes) -> Iterator[bytes]:
        """Bodies of the answers, of all of them. Raises ``OSError`` with the kernel's errno.

        ``flags`` must hold ``ACK`` or ``DUMP``, so that there is an end.
        """
        self._socket.send(_HEADER.pack(_HEADER.size + len(body), kind, REQUEST | flags, 1, 0) + body)
        while True:
            received = self._socket.recv(_BUFFER)
            while len(received) >= _HEADER.size:
                size, answer, *_ = _HEADER.unpack_from(received)
                content, received = received[_HEADER.size : size], received[(size + 3) & ~3 :]
                if answer == _ERROR:
                    (number,) = struct.unpack_from("=i", content)
                    if number:
                        raise OSError(-number, os.strerror(-number))
                    return
                if answer == _DONE:
                    return
                yield content


def attributes(raw: bytes) -> dict[int, bytes]:
    """Attributes by type; of several of a type the last."""
    found = {}
    while len(raw) >= _ATTRIBUTE.size:
        size, kind = _ATTRIBUTE.unpack_from(raw)
        if size < _ATTRIBUTE.size:
            break
        found[kind & 0x3FFF] = raw[_ATTRIBUTE.size : size]
        raw = raw[(size + 3) & ~3 :]
    return found
