"""A node with two tenants' workloads, its resolver, and a piece of internet with a name server."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dnslib import EDNS0, DNSRecord

from cells.boundary import compile_topology, model
from dataplane import addresses
from dataplane.agent import network
from dataplane.agent.kernel import Kernel
from dataplane.agent.names import Names
from dataplane.agent.namespaces import run_in
from dataplane.planes.documents import encode
from dataplane.planes.topology import FLOOR, floor_of_private
from infra.config import Config
from tests.dataplane import processes
from tests.dataplane.internet import Internet, internet, servers4, servers6
from tests.dataplane.resolver.nameserver import NameServer

REPOSITORY = Path(__file__).resolve().parents[3]
#: Tenants' workloads: name → (identity, number of its address).
WORKLOADS = {"web": (70001, 9201), "jobs": (70002, 9202), "stranger": (70003, 9203)}
TENANTS = {"web": 1, "jobs": 1, "stranger": 2}
Declared = dict[str, list[tuple[int, model.External]]]


@dataclass
class Outside:
    """What a test has at hand."""

    config: Config
    kernel: Kernel
    names: Names
    internet: Internet
    server: NameServer
    boundary: dict[str, Any]

    def declare(self, declared: Declared, audit: frozenset[str] = frozenset()) -> None:
        """Put exactly these (rule, destination) of each workload in force, as the agent does with a snapshot."""
        self.boundary = encode(compile_topology(topology(self.config, declared, audit)))
        self.kernel.apply(self.boundary)
        self.names.apply(self.boundary)
        self.names.write(self.boundary)

    def restart(self) -> None:
        """The agent is gone, and a new one takes its place."""
        self.names.close()
        self.names = Names(self.config, self.kernel)

    def ask(self, workload: str, name: str, kind: str = "A") -> DNSRecord:
        own = addresses.workload(self.config, addresses.RESOLVER)
        query = DNSRecord.question(name, kind)
        query.add_ar(EDNS0(udp_len=1232))
        return DNSRecord.parse(self.datagram(workload, own.v4, 53, bytes(query.pack())))

    def resolve(self, workload: str, name: str, kind: str = "A") -> list[str]:
        """Addresses; a table that was just replaced is read with the question."""
        return [str(row.rdata) for row in self.ask(workload, name, kind).rr if row.rtype in (1, 28)]

    def datagram(self, workload: str, address: str, port: int, data: bytes, patience: float = 6) -> bytes:
        def attempt() -> bytes:
            with socket.socket(_family(address), socket.SOCK_DGRAM) as client:
                client.settimeout(patience)
                client.connect((address, port))
                client.send(data)
                return client.recv(4096)

        return run_in(self.path(workload), attempt)

    def connect(self, workload: str, address: str, port: int, patience: float = 2) -> socket.socket:
        """A TCP connection that has heard from the other end."""

        def attempt() -> socket.socket:
            client = socket.create_connection((address, port), timeout=patience)
            assert client.recv(64).decode() == address
            return client

        return run_in(self.path(workload), attempt)

    def reaches(self, workload: str, address: str, port: int, udp: bool = False) -> bool:
        try:
            if udp:
                return self.datagram(workload, address, port, b"who", 0.4).decode() == address
            self.connect(workload, address, port, 0.4).close()
        except OSError:
            return False
        return True

    def path(self, workload: str) -> Path:
        return network.path_of(self.config, f"r{WORKLOADS[workload][1]}")

    def refused(self) -> set[tuple[str, str, int]]:
        """(reason, remote, port) of what was refused since the last time."""
        return {(f.reason, f.remote, f.port) for f in self.kernel.flows() if not f.allowed}

    def open(self, workload: str) -> set[tuple[str, int, int]]:
        """What the kernel has learned for it."""
        identity = WORKLOADS[workload][0]
        return {way[1:] for way in self.names._tables.learned() if way.identity == identity}


def _family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def topology(config: Config, declared: Declared, audit: frozenset[str]) -> model.Topology:
    """Each workload in a cell of its own."""
    cells = []
    for number, (name, (identity, index)) in enumerate(WORKLOADS.items(), 1):
        pair, gateway = addresses.workload(config, index), addresses.cell_gateway(config, number)
        connections = tuple(
            model.Connection(rule, f"X{rule}", external=external, listener_port=20000 + number)
            for rule, external in declared.get(name, ())
        )
        service = addresses.service(config, 100 + number)
        replica = model.Replica(f"r{index}", pair.v4, pair.v6, True)
        workload = model.Workload(
            identity, name, service.v4, service.v6, connections=connections, replicas=(replica,)
        )
        cells.append(
            model.Cell(
                number, TENANTS[name], f"t{TENANTS[name]}", name, "production", 900 + number, 80000 + number,
                gateway.v4, gateway.v6, audit=name in audit, workloads=(workload,),
            )
        )  # fmt: skip
    north, resolver = (addresses.workload(config, n) for n in (addresses.GATEWAY_NORTH, addresses.RESOLVER))
    index_proxy = addresses.workload(config, addresses.INDEX_PROXY)
    own = (config.workloads4, config.services4, config.workloads6, config.services6)
    return model.Topology(
        cells=tuple(cells),
        north4=north.v4,
        north6=north.v6,
        resolver4=resolver.v4,
        resolver6=resolver.v6,
        index4=index_proxy.v4,
        index6=index_proxy.v6,
        floor=FLOOR + floor_of_private(config) + tuple((str(n), "FLOOR") for n in own),
    )


@contextmanager
def outside(loaded: Config) -> Iterator[Outside]:
    """On programs that are loaded. Nothing of it is left afterwards."""
    with processes.folder("names") as home, internet(loaded.net) as world:
        first, other = servers4(loaded.net)[0], servers6(loaded.net)[0]
        config = replace(loaded, home=home, dns_servers=f"{first}, {other}")
        config.agent_dir.mkdir()
        config.resolver_dir.mkdir(mode=0o750)
        os.chown(config.resolver_dir, 0, processes.nobody()[1])
        server = NameServer().open(first, 53, world.path)
        kernel = Kernel(config)
        kernel.ensure_platform()
        made = Outside(config, kernel, Names(config, kernel), world, server, {})
        for identity, index in WORKLOADS.values():
            pair = addresses.workload(config, index)
            owned = [network.Address(pair.v4, pair.v6, identity)]
            kernel._tables.apply_identity(identity, 1, [])
            kernel.ensure_namespace(f"r{index}", index, owned)
        made.declare({})
        environment = {
            "CYTOPLANE_HOME": str(home),
            "CYTOPLANE_NET": str(config.net),
            "PYTHONPATH": str(REPOSITORY),
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        command = [
            "env",
            *(f"{k}={v}" for k, v in environment.items()),
            sys.executable,
            "-m",
            "dataplane.resolver",
        ]
        try:
            with processes.process(
                command,
                home / "resolver.log",
                lambda: _answers(made),
                namespace=network.path_of(config, "resolver"),
            ):
                yield made
        finally:
            made.names.close()
            kernel.connections.close()
            server.close()
            for identity in kernel._tables.identities():
                kernel._tables.remove_identity(identity)
            for way in kernel._tables.learned():
                kernel._tables.forget_learned(*way)
            kernel._tables.set_services([])
            kernel._tables.set_floor([])
            kernel._tables.close()
            network.remove_all(config)


def _answers(made: Outside) -> bool:
    try:
        return made.ask("web", "nobody").header.qr == 1
    except OSError:
        return False
