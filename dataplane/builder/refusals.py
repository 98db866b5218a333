"""What the kernel refused a build, for its log: who pushes should see what his build step tried."""

from __future__ import annotations

import logging
import socket
from contextlib import closing

from bpf.reasons import CODES, REASONS
from bpf.tables import Flow, Tables
from dataplane import addresses
from infra.config import Config

log = logging.getLogger("cytoplane.builder")
MOST_SHOWN = 200
_PROTOCOLS = {
    socket.IPPROTO_TCP: "tcp",
    socket.IPPROTO_UDP: "udp",
    socket.IPPROTO_ICMP: "icmp",
    socket.IPPROTO_ICMPV6: "icmpv6",
}
#: The kernel's own talk with its neighbours.
_HOUSEKEEPING = frozenset({"NEIGHBOUR"})


def take(config: Config, slot: int) -> list[Flow]:
    """Refused calls of a slot since the last time, taken out of the kernel's table."""
    own = addresses.IDENTITY_BUILDS[slot]
    try:
        with closing(Tables(config)) as tables:
            flows = tables.drain_flows(lambda source: source == own)
    except OSError as error:
        log.warning("refused calls of slot %s can't be read: %s", slot, error)
        return []
    return [flow for flow in flows if not flow.allowed and flow.reason not in _HOUSEKEEPING]


def lines(flows: list[Flow]) -> list[str]:
    """A line for each refused call, the most frequent first."""
    flows = sorted(flows, key=lambda flow: (-flow.packets, flow.remote, flow.port))
    found = []
    for flow in flows[:MOST_SHOWN]:
        protocol = _PROTOCOLS.get(flow.protocol, str(flow.protocol))
        target = f"[{flow.remote}]" if ":" in flow.remote else flow.remote
        sentence = REASONS[CODES[flow.reason]].sentence if flow.reason in CODES else ""
        found.append(f"       {protocol} {target}:{flow.port} {flow.reason}: {sentence}\n")
    if len(flows) > MOST_SHOWN:
        found.append(f"       and {len(flows) - MOST_SHOWN} more\n")
    if found:
        found.insert(0, "-----> Refused calls of the build: it reaches the package index and nothing else\n")
    return found
