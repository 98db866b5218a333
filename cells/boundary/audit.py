"""What a cell in audit may do for the record: exactly what its own declarations could open.

Calls that pass because of this are reported with the reason for which they would have been refused.
Another tenant, another environment, the floor and the platform's own parts are in nothing that is
made here, since no declaration opens them. Neither is what only a gateway may call: an endpoint that
receives callers' names would take a forged one from whoever came around it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import NamedTuple

from cells.boundary.edges import by_gateway_alone
from cells.boundary.model import AUDIT, DENY, TCP, UDP, Cell, Endpoint, ExternalEntry, Workload

ANY_PORT = 0
#: Everywhere outside; the kernel judges the floor before it.
OUTSIDE: tuple[ExternalEntry, ...] = tuple(
    (network, ANY_PORT, protocol, AUDIT, 0) for network in ("0.0.0.0/0", "::/0") for protocol in (TCP, UDP)
)


class Opened(NamedTuple):
    """An entry of consumer and provider: one port (0: all) with its verdict."""

    consumer: Workload
    cell: Cell
    provider: Workload
    port: int
    protocol: int
    verdict: int
    rule: int


def opened(cell: Cell, neighbours: Collection[Cell]) -> Iterator[Opened]:
    """Entries of a cell in audit. ``neighbours``: its tenant's cells in the same environment, itself or not."""
    for consumer in cell.workloads:
        for provider in cell.workloads:
            for protocol in (TCP, UDP):
                yield Opened(consumer, cell, provider, ANY_PORT, protocol, AUDIT, cell.rule)
            if provider is consumer:
                continue
            for endpoint in provider.endpoints:
                if by_gateway_alone(endpoint):
                    yield Opened(
                        consumer, cell, provider, endpoint.port, endpoint.number, DENY, endpoint.rule
                    )
        for other in neighbours:
            # Asked again, whoever calls: nothing of a stranger's may depend on who made the list.
            if other.number == cell.number or not same_surroundings(cell, other):
                continue
            for provider in other.workloads:
                for endpoint in provider.endpoints:
                    if _open(endpoint):
                        yield Opened(
                            consumer, other, provider, endpoint.port, endpoint.number, AUDIT, endpoint.rule
                        )


def reachable(cell: Cell) -> bool:
    """Whether a cell of its surroundings that is in audit may call anything in it."""
    return any(_open(endpoint) for workload in cell.workloads for endpoint in workload.endpoints)


def _open(endpoint: Endpoint) -> bool:
    return endpoint.visibility in ("tenant", "public") and not by_gateway_alone(endpoint)


def same_surroundings(one: Cell, other: Cell) -> bool:
    """Of one tenant and in one environment: where declarations can open anything at all."""
    return (one.tenant, one.environment) == (other.tenant, other.environment)
