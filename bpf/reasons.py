"""Reason codes of the kernel programs, with a sentence for each. ``lib/reasons.h`` has the numbers."""

from __future__ import annotations

from typing import NamedTuple


class Reason(NamedTuple):
    """``code`` is what records and the API carry."""

    code: str
    sentence: str


REASONS: dict[int, Reason] = {
    0: Reason("OK", "Allowed."),
    1: Reason("NOT_READY", "The interface has no identity yet; everything is dropped until it has."),
    2: Reason("NOT_IP", "Only IPv4 and IPv6 pass."),
    3: Reason("NEIGHBOUR", "ARP, neighbour and router discovery are refused; neighbours are fixed."),
    4: Reason("BAD_MAC", "The frame's hardware addresses aren't the workload's and its node's."),
    5: Reason("MALFORMED", "The packet is too short or contradicts itself."),
    6: Reason("IP_OPTIONS", "IPv4 options, source routes among them, are refused."),
    7: Reason("EXTENSION_HEADER", "The chain of IPv6 extension headers isn't one that may pass."),
    8: Reason("PROTOCOL", "Only TCP, UDP and ICMP pass."),
    9: Reason("SPOOFED_SOURCE", "The source address isn't the sender's own."),
    10: Reason("MULTICAST", "Multicast and broadcast are refused."),
    11: Reason("UNKNOWN_DESTINATION", "No workload has this address."),
    12: Reason("SERVICE_ON_WIRE", "A service address was used without being translated at the socket."),
    13: Reason("FLOOR", "The destination belongs to what no tenant can open."),
    14: Reason("NO_RULE", "No declaration allows this call."),
    15: Reason("DENIED", "A rule denies this call."),
    16: Reason("EGRESS", "No declaration allows this external destination."),
    17: Reason("FRAGMENT", "A fragment whose first part didn't pass."),
    18: Reason("ICMP", "ICMP that isn't declared and doesn't belong to an allowed flow."),
    19: Reason("NOT_LOCAL", "The destination isn't an address of this workload."),
    20: Reason("NO_BACKEND", "The service has no replica that serves."),
    21: Reason("NO_SERVICE", "The service address has no such port."),
    22: Reason("NODE", "Node addresses are closed to workloads."),
    23: Reason("REVOKED", "The declaration that allowed this flow was taken back."),
    24: Reason("NAME", "No declared connection leads to this name, so the resolver doesn't know it."),
    25: Reason("BANDWIDTH", "The component uses more bandwidth than its limit allows."),
    26: Reason("RATE", "The component opens or gets more new connections per second than its limit allows."),
    27: Reason("CONNECTIONS", "The component has as many open connections as its limit allows."),
    28: Reason("QUOTA", "The workload uses up what the node keeps for it."),
    29: Reason("EDGE_DENIED", "The sender is on the operator's list of those who may not call."),
    30: Reason("EDGE_RATE", "The sender opens more connections per second than one sender may."),
    31: Reason("NAME_FLOOR", "The name leads to an address that no tenant can open, so that isn't answered."),
    32: Reason("NAME_QUOTA", "As many addresses as fit are open for the names that the component asked for."),
}

CODES: dict[str, int] = {reason.code: number for number, reason in REASONS.items()}
