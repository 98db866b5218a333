"""The self-check of a cell's pod: a program without libraries, built into an image of its own."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bpf.tables import Flow

#: Port that nobody opens: the check sends a datagram there, which must get no answer.
CLOSED = 54


def is_own(flow: Flow) -> bool:
    """Whether a flow is what the check tried in vain: each start has it, and nobody need be told."""
    return not flow.allowed and flow.protocol == socket.IPPROTO_UDP and flow.port == CLOSED
