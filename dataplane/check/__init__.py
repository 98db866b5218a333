"""The self-check of a cell's pod: a program without libraries, built into an image of its own; and the packet
that its node sends it, which mustn't arrive."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bpf.tables import Flow

#: Port that nobody opens: the check sends a datagram there, which must get no answer.
CLOSED = 54


def uninvited(address: str, port: int) -> None:
    """Send a datagram to somebody on this node who asked for none. Raises ``OSError``.

    The node itself does: nothing but the receiver's own filter stands between.
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sender:
        sender.setblocking(False)
        sender.sendto(b"\0", (address, port))


def is_own(flow: Flow) -> bool:
    """Whether a flow is what the check tried in vain: each start has it, and nobody need be told."""
    return not flow.allowed and flow.protocol == socket.IPPROTO_UDP and flow.port == CLOSED
