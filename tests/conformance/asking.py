"""Asking many questions at once over sockets, and waiting once for whatever comes."""

from __future__ import annotations

import selectors
import socket
import struct
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from cells.boundary.model import ICMP, ICMPV6, TCP
from tests.conformance.probes import Probe

#: Who answers does so in a millisecond; a busy machine is asked again about what surprises.
PATIENCE = 0.6


class Target(NamedTuple):
    """``said`` is what the client says first: the public host that it means."""

    address: str
    port: int
    said: str = ""


class Asker:
    """``target`` says where a probe goes; None where it can't even be tried."""

    def __init__(self, target: Callable[[Probe], Target | None]) -> None:
        self._target = target

    def ask(self, probes: list[Probe]) -> dict[Probe, str]:
        """Who answered, or ""; from the namespace of the calling thread."""
        answers = dict.fromkeys(probes, "")
        waiting: Any = selectors.DefaultSelector()
        for probe in probes:
            target = self._target(probe)
            if target is None:
                continue
            client = _begin(probe, target)
            if client is not None:
                events = selectors.EVENT_WRITE if target.said else selectors.EVENT_READ
                waiting.register(client, events, (probe, target))
        end = time.monotonic() + PATIENCE
        while waiting.get_map() and (left := end - time.monotonic()) > 0:
            for key, events in waiting.select(left):
                probe, target = key.data
                try:
                    if events & selectors.EVENT_WRITE:
                        key.fileobj.sendall(target.said.encode())
                        waiting.modify(key.fileobj, selectors.EVENT_READ, key.data)
                        continue
                    answers[probe] = _read(key.fileobj, probe, target)
                except OSError:
                    pass
                waiting.unregister(key.fileobj)
                key.fileobj.close()
        for key in list(waiting.get_map().values()):
            key.fileobj.close()
        waiting.close()
        return answers


def _begin(probe: Probe, target: Target) -> socket.socket | None:
    family = socket.AF_INET6 if probe.family == 6 else socket.AF_INET
    kind = socket.SOCK_STREAM if probe.protocol == TCP else socket.SOCK_DGRAM
    echo = probe.protocol in (ICMP, ICMPV6)
    client = socket.socket(family, kind, probe.protocol if echo else 0)
    client.setblocking(False)
    try:
        if probe.protocol == TCP:
            client.connect_ex((target.address, target.port))
        elif echo:
            request = 8 if probe.protocol == ICMP else 128
            client.sendto(struct.pack("!BBHHH", request, 0, 0, 0, 1), (target.address, 0))
        else:
            client.sendto(b"who", (target.address, target.port))
    except OSError:
        client.close()
        return None
    return client


def _read(client: socket.socket, probe: Probe, target: Target) -> str:
    data, peer = client.recvfrom(64)
    if probe.protocol in (ICMP, ICMPV6):
        return "pong" if data[:1] in (b"\x00", b"\x81") else ""
    if not peer or peer[0] == target.address:
        return data.decode()
    return f"{data.decode()} from {peer[0]}"
