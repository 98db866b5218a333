"""The rules of the cell boundary, one edge at a time: who may call which endpoint, and how.

This is the only place that decides. ``compile_topology`` turns its answers into tables, ``explain``
into sentences, so the two can't disagree.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, replace

from cells.boundary.model import GATEWAY_PROTOCOLS, RULE_SELF, Cell, Connection, Endpoint, Workload


@dataclass(frozen=True)
class Edge:
    """The answer for one consumer and one endpoint.

    ``reason`` is a word from the catalogue below; ``rule`` the number of the declaration that
    decided, or that would have had to allow it. ``connection`` is set where a gateway listener of
    that connection is the way. ``audited``: it isn't allowed, but the consumer's cell is in audit, so it
    passes directly and is reported.
    """

    allowed: bool
    reason: str
    rule: int
    connection: Connection | None = None
    audited: bool = False

    @property
    def via_gateway(self) -> bool:
        return self.connection is not None


def connection_to(consumer: Workload, provider: Workload, endpoint: Endpoint) -> Connection | None:
    """The consumer's declared connection to the endpoint; the oldest where it is declared twice."""
    declared = [
        connection
        for connection in consumer.connections
        if connection.provider == provider.identity and connection.endpoint == endpoint.name
    ]
    return min(declared, key=lambda connection: connection.rule, default=None)


def by_gateway_alone(endpoint: Endpoint) -> bool:
    """Whether nobody may call it but its gateway, which vouches for the callers' names."""
    return endpoint.callers and endpoint.protocol in GATEWAY_PROTOCOLS


def decide(
    consumer_cell: Cell, consumer: Workload, provider_cell: Cell, provider: Workload, endpoint: Endpoint
) -> Edge:
    """May ``consumer`` call ``endpoint`` of ``provider``, and by which way?"""
    edge = _declared(consumer_cell, consumer, provider_cell, provider, endpoint)
    # What a connection alone would open, without a gateway's word about who calls.
    missing = edge.reason in ("STRICT", "NOT_CONNECTED") and not by_gateway_alone(endpoint)
    return replace(edge, audited=True) if consumer_cell.audit and missing else edge


def _declared(
    consumer_cell: Cell, consumer: Workload, provider_cell: Cell, provider: Workload, endpoint: Endpoint
) -> Edge:
    """The answer by declarations alone."""
    if consumer.identity == provider.identity:
        return Edge(True, "SELF", RULE_SELF)
    if consumer_cell.tenant != provider_cell.tenant:
        return Edge(False, "OTHER_TENANT", provider_cell.rule)
    if consumer_cell.environment != provider_cell.environment:
        return Edge(False, "OTHER_ENVIRONMENT", provider_cell.rule)
    declared = connection_to(consumer, provider, endpoint)
    if consumer_cell.number == provider_cell.number:
        if by_gateway_alone(endpoint):
            if declared is None:
                return Edge(False, "CALLERS_ONLY", endpoint.rule)
            return Edge(True, "CONNECTION", declared.rule, declared)
        if declared is not None:
            return Edge(True, "CONNECTION", declared.rule)
        if consumer_cell.strict:
            return Edge(False, "STRICT", endpoint.rule)
        return Edge(True, "SAME_CELL", endpoint.rule)
    if endpoint.visibility not in ("tenant", "public"):
        return Edge(False, "VISIBILITY", endpoint.rule)
    if declared is None:
        return Edge(False, "NOT_CONNECTED", endpoint.rule)
    if endpoint.protocol in GATEWAY_PROTOCOLS:
        return Edge(True, "CONNECTION", declared.rule, declared)
    return Edge(True, "CONNECTION", declared.rule)


def floor_reason(floor: tuple[tuple[str, str], ...], cidr: str) -> str:
    """Why a network lies in the floor, or "". One that only holds a part of it is judged packet by packet."""
    network = ipaddress.ip_network(cidr, strict=False)
    for text, reason in floor:
        floored = ipaddress.ip_network(text, strict=False)
        if floored.version == network.version and network.subnet_of(floored):  # type: ignore[arg-type]
            return reason
    return ""
