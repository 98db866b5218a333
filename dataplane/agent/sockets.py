"""Sockets of a network namespace, listed and ended by the kernel's socket diagnosis.

What is ended gets ECONNABORTED, at once, whatever it waits for; a TCP peer is sent a reset. Layouts:
``linux/inet_diag.h``; every address here is 16 bytes, IPv4 as ::ffff:a.b.c.d, as in ``bpf.layout``.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from dataplane.agent import netlink
from dataplane.agent.namespaces import run_in

_NETLINK_SOCK_DIAG = 4
_BY_FAMILY, _DESTROY = 20, 21
#: family, protocol, extensions, padding, states; a socket's id follows.
_REQUEST_HEAD = struct.Struct("=BBBBI")
#: ports in network order, source, destination, interface, cookie.
_ID = struct.Struct("=2s2s16s16sI8s")
_ANSWER_HEAD = struct.Struct("=BBBB")
_MAPPED = b"\0" * 10 + b"\xff\xff"

ESTABLISHED, SYN_SENT, SYN_RECV, FIN_WAIT1, FIN_WAIT2 = 1, 2, 3, 4, 5
CLOSE_WAIT, LAST_ACK, CLOSING = 8, 9, 11
#: All that have another end; neither listeners nor what only waits for late packets.
CONNECTED = (ESTABLISHED, SYN_SENT, SYN_RECV, FIN_WAIT1, FIN_WAIT2, CLOSE_WAIT, LAST_ACK, CLOSING)
TCP, UDP = socket.IPPROTO_TCP, socket.IPPROTO_UDP


class DiagnosisError(RuntimeError):
    """The kernel refused to list or to end sockets."""


@dataclass(frozen=True)
class Socket:
    """A TCP connection or a connected UDP socket. ``raw`` is its id as the kernel gave it."""

    family: int
    protocol: int
    state: int
    local: bytes
    local_port: int
    remote: bytes
    remote_port: int
    raw: bytes

    @property
    def ends(self) -> tuple[int, bytes, int, bytes, int]:
        """(protocol, local address and port, remote address and port)."""
        return self.protocol, self.local, self.local_port, self.remote, self.remote_port

    @property
    def other_end(self) -> tuple[int, bytes, int, bytes, int]:
        """``ends`` of the socket at the other side."""
        return self.protocol, self.remote, self.remote_port, self.local, self.local_port


class _Diagnosis(netlink.Conversation):
    """Asks about the sockets of the namespace that it was opened in."""

    def __init__(self) -> None:
        super().__init__(_NETLINK_SOCK_DIAG)

    def __enter__(self) -> _Diagnosis:
        return self

    def list(self, protocols: Iterable[int], states: Iterable[int]) -> list[Socket]:
        mask = sum(1 << state for state in states)
        found = []
        for protocol in protocols:
            for family in (socket.AF_INET, socket.AF_INET6):
                body = _REQUEST_HEAD.pack(family, protocol, 0, 0, mask) + bytes(_ID.size)
                found += [_read(protocol, answer) for answer in self.ask(_BY_FAMILY, netlink.DUMP, body)]
        # A UDP socket without another end has port 0 there.
        return [each for each in found if each.remote_port]

    def end(self, each: Socket) -> bool:
        """Whether it was still there."""
        body = _REQUEST_HEAD.pack(each.family, each.protocol, 0, 0, 0) + each.raw
        try:
            for _ in self.ask(_DESTROY, netlink.ACK, body):
                pass
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ESTALE):
                return False
            raise
        return True


def _read(protocol: int, answer: bytes) -> Socket:
    family, state, _, _ = _ANSWER_HEAD.unpack_from(answer)
    raw = answer[_ANSWER_HEAD.size : _ANSWER_HEAD.size + _ID.size]
    local_port, remote_port, local, remote, _, _ = _ID.unpack(raw)
    if family == socket.AF_INET:
        local, remote = _MAPPED + local[:4], _MAPPED + remote[:4]
    return Socket(
        family, protocol, state, local, int.from_bytes(local_port), remote, int.from_bytes(remote_port), raw
    )


def listing(
    namespace: Path, protocols: Iterable[int] = (TCP, UDP), states: Iterable[int] = CONNECTED
) -> list[Socket]:
    """Connected sockets of the namespace. Raises ``OSError`` if there is no such namespace."""

    def work() -> list[Socket]:
        with _Diagnosis() as diagnosis:
            return diagnosis.list(protocols, states)

    return run_in(namespace, work)


def end(namespace: Path, wanted: Callable[[Socket], bool]) -> list[Socket]:
    """End the connected sockets of the namespace that ``wanted`` is true for; those that were ended.

    ``wanted`` is called once for each. A socket that changes meanwhile is left to the next time.
    Raises ``DiagnosisError``, or ``OSError`` if there is no such namespace.
    """

    def work() -> list[Socket]:
        with _Diagnosis() as diagnosis:
            chosen = [each for each in diagnosis.list((TCP, UDP), CONNECTED) if wanted(each)]
            try:
                return [each for each in chosen if diagnosis.end(each)]
            except OSError as error:
                raise DiagnosisError(f"a socket can't be ended: {error}") from error

    return run_in(namespace, work)
