"""Which address has which purpose: host parts of an installation's ranges, by index.

An index is the host part of both the IPv4 and the IPv6 address, so ``workload(config, 1024)`` is
10.64.4.0 and fd63:7970:0:1::400.
"""

from __future__ import annotations

from typing import NamedTuple

from infra.config import Config

GATEWAY_NORTH = 2
RESOLVER = 3
INDEX_PROXY = 4
#: Two namespaces in which the agent tests that the kernel side works.
SELFTEST_FIRST = 5
BUILD_FIRST = 8
BUILD_SLOTS = 2
#: The gateway's addresses towards cells, one for each cell that there ever was.
CELL_GATEWAY_FIRST, CELL_GATEWAYS = 512, 7680
#: Replicas. Each index has a range of user ids of its own, so there are half as many as addresses.
REPLICA_FIRST, REPLICA_LAST = 8192, (1 << 15) - 32
#: Answered for public names of other tenants; steered to the north gateway.
PUBLIC_DOOR_SERVICE = 2
SELFTEST_SERVICE = 3

IDENTITY_NODE = 1
IDENTITY_WORLD = 2
IDENTITY_GATEWAY_NORTH = 3
IDENTITY_RESOLVER = 4
IDENTITY_INDEX_PROXY = 6
IDENTITY_SELFTEST = (8, 9)
#: One for each build slot, so that what a build tried is told apart from what its neighbour tried.
IDENTITY_BUILDS = tuple(range(16, 16 + BUILD_SLOTS))

NORTH_HTTP_PORT = 8080
INDEX_PROXY_PORT = 3141
#: Where gateways of a plane's nodes answer each other, at the node and at its gateway.
GATEWAYS_PORT = 8444


class Pair(NamedTuple):
    """An IPv4 and an IPv6 address, as text."""

    v4: str
    v6: str


def workload(config: Config, index: int) -> Pair:
    """The addresses of the workload range at ``index``."""
    return Pair(str(config.workloads4[index]), str(config.workloads6[index]))


def service(config: Config, index: int) -> Pair:
    """The addresses of the service range at ``index``."""
    return Pair(str(config.services4[index]), str(config.services6[index]))


def cell_gateway(config: Config, index: int) -> Pair:
    """The gateway's addresses towards the cell with gateway index ``index``."""
    return workload(config, CELL_GATEWAY_FIRST + index)


def build(config: Config, slot: int) -> Pair:
    """The addresses of a build namespace."""
    return workload(config, BUILD_FIRST + slot)
