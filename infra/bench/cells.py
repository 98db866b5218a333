"""Planes of any size to measure with: cells of three components, a share of them connected to others."""

from __future__ import annotations

import random

from cells.boundary.model import Cell, Connection, Endpoint, External, Replica, Topology, Workload

#: Cells of a tenant in one environment; every second one calls another of them, every fifth the outside.
TENANT = 10


def topology(cells: int, seed: int = 1) -> Topology:
    """A public page, an API that other cells may call, a database beside them; two replicas of the API."""
    dice = random.Random(seed)  # noqa: S311  worlds, no secrets
    return Topology(
        cells=tuple(cell(number, cells, dice) for number in range(1, cells + 1)),
        north4="10.64.0.2", north6="fd63:7970:0:1::2", public_ports=(80, 8080),
        door4="10.65.0.2", door6="fd63:7970:0:2::2",
        resolver4="10.64.0.3", resolver6="fd63:7970:0:1::3", index4="10.64.0.4", index6="fd63:7970:0:1::4",
        floor=(("169.254.0.0/16", "FLOOR"), ("10.0.0.0/8", "FLOOR"), ("fc00::/7", "FLOOR")),
    )  # fmt: skip


def cell(number: int, of: int, dice: random.Random, *, strict: bool = False) -> Cell:
    """Cell ``number`` of so many; its numbers follow from its own."""
    first = 100 * number
    tenant = (number - 1) // TENANT
    outside = [Connection(first + 20, "OUT", external=External(443, "tcp", cidr="203.0.113.0/24"))]
    other = tenant * TENANT + dice.randrange(TENANT) + 1
    calls = []
    if number % 2 and other != number and other <= of:
        calls = [
            Connection(first + 21, "OTHER", 100 * other + 1, "http", listener_port=10000 + number % 50000)
        ]

    def workload(place: int, name: str, *endpoints: Endpoint, replicas: int = 1, calls=()) -> Workload:  # type: ignore[no-untyped-def]
        index = 4 * number + place
        return Workload(
            identity=first + place,
            name=name,
            service4=f"10.{65 + (index >> 16)}.{index >> 8 & 255}.{index & 255}",
            service6=f"fd63:7970:0:2::{index:x}",
            endpoints=endpoints,
            connections=tuple(calls),
            replicas=tuple(
                Replica(
                    f"r{8 * number + 2 * place + n}",
                    f"10.{100 + (index >> 16)}.{index >> 8 & 255}.{index & 255}",
                    f"fd63:7970:0:1:{n}::{index:x}",
                    True,
                )
                for n in range(replicas)
            ),
        )

    web = Endpoint(first + 10, "http", 8080, "http", "public", hosts=(f"web{number}.localhost",))
    api = Endpoint(first + 11, "http", 8080, "http", "tenant", callers=False)
    store = Endpoint(first + 12, "sql", 5432, "tcp")
    return Cell(
        number=number,
        tenant=tenant,
        tenant_name=f"tenant{tenant}",
        project=f"project{number}",
        environment="production",
        rule=first + 9,
        gateway_identity=first + 8,
        gateway4=f"10.{110 + (number >> 16)}.{number >> 8 & 255}.{number & 255}",
        gateway6=f"fd63:7970:0:1:9::{number:x}",
        strict=strict,
        workloads=(
            workload(0, "web", web, calls=[*calls, *(outside if number % 5 == 0 else ())]),
            workload(1, "api", api, replicas=2),
            workload(2, "store", store),
        ),
    )
