"""A world on the real kernel programs: namespaces, compiled tables, sockets that answer and ask."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from bpf.tables import External, Policy, Service, Tables
from cells.boundary.model import Boundary, Topology
from dataplane import addresses
from dataplane.agent import network
from dataplane.agent.namespaces import run_in, write_sysctls
from dataplane.agent.node_addresses import node_addresses
from infra.config import Config
from tests.bpf.conftest import APART, load, remove
from tests.conformance.answering import Answers
from tests.conformance.asking import Asker, Target
from tests.conformance.engine import Report
from tests.conformance.names import Resolver
from tests.conformance.outside import Outside
from tests.conformance.probes import (
    CONTAINER,
    DOOR,
    LISTENER,
    NAME,
    NODE_ITSELF,
    NORTH,
    PING,
    PUBLIC,
    SERVICE,
    SHORT,
    STRANGER,
    Probe,
)
from tests.conformance.relay import Relay
from tests.conformance.world import NODE, World

#: The node's port for public hosts, for each number of an installation one.
PUBLIC_PORT = 26080
#: Sockets that one asker has open at a time.
BATCH = 150
#: Callers that ask at the same time; they mostly wait.
ASKERS = 12


@dataclass(frozen=True)
class MachineSite:
    """The kernel side is loaded under the number of ``config``."""

    config: Config
    tables: Tables

    def engine(self, world: World, topology: Topology, boundary: Boundary) -> MachineEngine:
        return MachineEngine(world, topology, boundary, self.config, self.tables)


def site(config: Config, tables: Tables) -> MachineSite:
    """With a public port that no installation of the machine has."""
    return MachineSite(replace(config, apps_port=PUBLIC_PORT + config.net), tables)


@contextlib.contextmanager
def machine() -> Iterator[MachineSite]:
    """The kernel side loaded for a while, under the tests' number."""
    with TemporaryDirectory() as home:
        config = Config(home=Path(home), net=APART)
        remove(config)
        try:
            load(config)
            network.ensure_host(config)
            yield site(config, Tables(config))
        finally:
            remove(config)


class MachineEngine:
    """``config`` has a port for public hosts of its own; ``topology`` is what the boundary was made of."""

    def __init__(
        self, world: World, topology: Topology, boundary: Boundary, config: Config, tables: Tables
    ) -> None:
        self.world, self.topology, self.config, self.tables = world, topology, config, tables
        self.namespaces: dict[int, network.Namespace] = {}
        self.resolver: Resolver | None = None
        self._outside: Outside | None = None
        self._gateway: network.Namespace | None = None
        self._relay: Relay | None = None
        self._identities: set[int] = set()
        self._answers = Answers()
        try:
            self._build(boundary)
        except BaseException:
            self.close()
            raise

    def _build(self, boundary: Boundary) -> None:
        config, tables = self.config, self.tables
        self._outside = Outside(config)
        for thing in self.world.things:
            for copy in thing.copies:
                pair = addresses.workload(config, copy.index)
                address = network.Address(pair.v4, pair.v6, thing.identity)
                made = network.connect(config, tables, f"w{copy.index}", copy.index, [address])
                self.namespaces[copy.index] = made
                write_sysctls(made.path, {"net/ipv4/ping_group_range": "0 0"})
                self._answers.listen(made.path, thing.ports, str(copy.index))
        owned: dict[int, list[str]] = {}
        for address_text, (identity, part) in boundary.addresses.items():
            if part == "gateway":
                owned.setdefault(identity, []).append(address_text)
        pairs = []
        for identity, both in owned.items():
            v4, v6 = sorted(both, key=lambda text: ":" in text)
            pairs.append(network.Address(v4, v6, identity))
        self._gateway = network.connect(
            config, tables, "gateway", addresses.GATEWAY_NORTH, pairs, hooked=False
        )
        for name, opened in (("outside", self._outside.sockets), ("node", self._outside.node_sockets)):
            for server in opened:
                self._answers.register(server, name)
        self.apply(boundary)
        self.resolver = Resolver(config, tables, boundary)
        self._answers.start()

    def apply(self, boundary: Boundary) -> None:
        """Everything of the boundary but names, which the resolver is given once."""
        assert self._gateway is not None
        own = {str(n) for n in (self.config.workloads4, self.config.services4)}
        own |= {str(n) for n in (self.config.workloads6, self.config.services6)}
        # As the agent does it: the platform's ranges are judged by identity, the node's addresses added.
        floor = [entry for entry in boundary.floor if entry[0] not in own]
        self.tables.set_floor([*floor, *node_addresses(self.config)])
        for identity, entry in boundary.identities.items():
            self._identities.add(identity)
            self.tables.apply_identity(
                identity,
                entry.cell,
                [Policy(*e) for e in entry.policy],
                [External(*e) for e in entry.external],
            )
        self.tables.set_services(
            Service(s.consumer, s.address, s.port, s.protocol, tuple(b[1:] for b in s.backends))
            for s in boundary.services
        )
        if self._relay is not None:
            self._relay.close()
        self._relay = Relay(self._gateway.path, boundary, self.topology)

    def ask(self, probes: Iterable[Probe]) -> dict[Probe, str]:
        """Who answered each probe, or ""."""
        by_caller: dict[int, list[Probe]] = {}
        for probe in probes:
            by_caller.setdefault(probe.caller, []).append(probe)
        answers: dict[Probe, str] = {}
        with ThreadPoolExecutor(ASKERS) as pool:
            work = [pool.submit(self._ask_from, caller, asked) for caller, asked in by_caller.items()]
            for future in work:
                answers.update(future.result())
        return answers

    def _ask_from(self, caller: int, probes: list[Probe]) -> dict[Probe, str]:
        asker = Asker(self._target)
        if caller in (STRANGER, NODE_ITSELF):
            assert self._outside is not None
            path = self._outside.path
            if caller == NODE_ITSELF:
                return self._batches(asker, probes, lambda function: function())
            return self._batches(asker, probes, partial(run_in, path))
        namespace = self.namespaces[caller]
        inside = partial(run_in, namespace.path)
        answers = self._batches(asker, [probe for probe in probes if probe.hooked], inside)
        bare = [probe for probe in probes if not probe.hooked]
        if bare:
            self.tables.forget_caller(namespace.cookie)
            answers.update(self._batches(asker, bare, inside))
            identity = self.world.owner(caller).identity
            self.tables.set_endpoint(
                namespace.ifindex, identity, namespace.mac, namespace.host_mac, namespace.cookie
            )
        return answers

    @staticmethod
    def _batches(asker: Asker, probes: list[Probe], inside: Any) -> dict[Probe, str]:
        answers: dict[Probe, str] = {}
        for start in range(0, len(probes), BATCH):
            answers.update(inside(partial(asker.ask, probes[start : start + BATCH])))
        return answers

    def _target(self, probe: Probe) -> Target | None:
        """Where the probe goes; None where its name leads nowhere. Asked in the caller's namespace."""
        if probe.way in (NAME, SHORT, DOOR):
            address = self._look_up(probe)
            said = probe.where if probe.way == DOOR else ""
            return Target(address, probe.number, said) if address else None
        if probe.way == NORTH:
            return Target(self._north(probe.family), self.topology.north_port, probe.where)
        if probe.way == PUBLIC:
            return Target(NODE[probe.family == 6], self.config.apps_port, probe.where)
        if probe.where:
            return Target(probe.where, probe.number)
        callee = self.world.thing(probe.callee)
        pairs = {
            SERVICE: lambda: addresses.service(self.config, callee.service),
            CONTAINER: lambda: addresses.workload(self.config, probe.copy),
            PING: lambda: addresses.workload(self.config, probe.copy),
            LISTENER: lambda: addresses.cell_gateway(self.config, self.world.place(callee).gateway),
        }
        return Target(pairs[probe.way]()[probe.family == 6], probe.number)

    def _north(self, family: int) -> str:
        return self.topology.north4 if family == 4 else self.topology.north6

    def _look_up(self, probe: Probe) -> str:
        assert self.resolver is not None
        if probe.way == DOOR:
            return self.resolver.look_up(probe.where, probe.family)
        callee = self.world.thing(probe.callee)
        name = callee.name if probe.way == SHORT else f"{callee.name}.{callee.project}"
        return self.resolver.look_up(name, probe.family)

    def reports(self) -> set[Report]:
        return {
            Report(flow.source, flow.destination, flow.port, flow.protocol)
            for flow in self.tables.drain_flows()
            if flow.allowed and flow.reason != "OK"
        }

    def close(self) -> None:
        if self._relay is not None:
            self._relay.close()
        if self.resolver is not None:
            self.resolver.close()
        self._answers.close()
        for index, namespace in self.namespaces.items():
            self.tables.remove_endpoint(namespace.ifindex, namespace.cookie)
            network.destroy(self.config, namespace.name, index)
        if self._gateway is not None:
            self.tables.remove_endpoint(self._gateway.ifindex, self._gateway.cookie)
            network.destroy(self.config, "gateway", addresses.GATEWAY_NORTH)
        for identity in self._identities:
            self.tables.remove_identity(identity)
        self.tables.set_services([])
        self.tables.set_floor([])
        if self._outside is not None:
            self._outside.close()
