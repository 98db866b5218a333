"""A world on the real kernel programs: namespaces, compiled tables, sockets that answer and ask."""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

from bpf.tables import External, Policy, Service, Tables
from cells.boundary import compile_topology
from dataplane.agent import network
from dataplane.agent.namespaces import run_in
from infra.config import Config
from tests.conformance.names import Resolver
from tests.conformance.oracle import CONTAINER, NAME, SERVICE
from tests.conformance.relay import Relay
from tests.conformance.world import Port, Thing, World, index_of, topology

PATIENCE = 0.6
#: Sockets that one asker has open at a time.
BATCH = 150


@dataclass(frozen=True)
class Probe:
    """One call. ``hooked`` False: the caller's socket hooks don't know it, as for raw senders."""

    caller: int
    callee: int
    port: str
    way: str
    family: int
    hooked: bool = True


class MachineEngine:
    def __init__(self, world: World, config: Config, tables: Tables) -> None:
        self.world, self.config, self.tables = world, config, tables
        self.namespaces: dict[int, network.Namespace] = {}
        self._selector: Any = selectors.DefaultSelector()
        self._closed = threading.Event()
        self.boundary = compile_topology(topology(world, config))
        self._build()

    def _build(self) -> None:
        config, tables = self.config, self.tables
        tables.set_floor(self.boundary.floor)
        for identity, entry in self.boundary.identities.items():
            tables.apply_identity(
                identity,
                entry.cell,
                [Policy(*e) for e in entry.policy],
                [External(*e) for e in entry.external],
            )
        tables.set_services(
            Service(s.consumer, s.address, s.port, s.protocol, tuple(b[1:] for b in s.backends))
            for s in self.boundary.services
        )
        for thing in self.world.things:
            index = index_of(thing)
            pair = network.Address(
                str(config.workloads4[index]), str(config.workloads6[index]), thing.identity
            )
            self.namespaces[thing.identity] = network.connect(config, tables, f"w{index}", index, [pair])
            self._listen(thing)
        owned: dict[int, list[str]] = {}
        for address, (identity, part) in self.boundary.addresses.items():
            if part == "gateway":
                owned.setdefault(identity, []).append(address)
        pairs = []
        for identity, both in owned.items():
            v4, v6 = sorted(both, key=lambda text: ":" in text)
            pairs.append(network.Address(v4, v6, identity))
        self.gateway = network.connect(config, tables, "gateway", 2, pairs, hooked=False)
        self.relay = Relay(self.gateway, self.boundary)
        self.resolver = Resolver(config, tables, self.boundary)
        threading.Thread(target=self._answer, daemon=True).start()

    def _listen(self, thing: Thing) -> None:
        def open_all() -> None:
            for port in thing.ports:
                kind = socket.SOCK_STREAM if port.is_tcp else socket.SOCK_DGRAM
                server = socket.socket(socket.AF_INET6, kind)
                server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
                server.bind(("::", port.number))
                if port.is_tcp:
                    server.listen(512)
                server.setblocking(False)
                self._selector.register(server, selectors.EVENT_READ, (str(thing.identity), port.is_tcp))

        run_in(self.namespaces[thing.identity].path, open_all)

    def _answer(self) -> None:
        """One thread serves everybody: a greeting that names the workload."""
        while not self._closed.is_set():
            for key, _ in self._selector.select(0.2):
                name, is_tcp = key.data
                with contextlib.suppress(OSError):
                    if is_tcp:
                        connection, _ = key.fileobj.accept()
                        with connection:
                            connection.sendall(name.encode())
                    else:
                        _, peer = key.fileobj.recvfrom(64)
                        key.fileobj.sendto(name.encode(), peer)

    def ask(
        self, probes: Iterable[Probe], progress: Callable[[int], None] = lambda _: None
    ) -> dict[Probe, str]:
        """Who answered each probe, or ""."""
        by_caller: dict[int, list[Probe]] = {}
        for probe in probes:
            by_caller.setdefault(probe.caller, []).append(probe)
        answers: dict[Probe, str] = {}
        with ThreadPoolExecutor(6) as pool:
            work = [pool.submit(self._ask_from, caller, asked) for caller, asked in by_caller.items()]
            for future in work:
                answers.update(future.result())
                progress(len(answers))
        return answers

    def _ask_from(self, caller: int, probes: list[Probe]) -> dict[Probe, str]:
        namespace = self.namespaces[caller]
        answers: dict[Probe, str] = {}
        for hooked in (True, False):
            chosen = [probe for probe in probes if probe.hooked is hooked]
            if not hooked:
                self.tables.forget_caller(namespace.cookie)
            for start in range(0, len(chosen), BATCH):
                batch = chosen[start : start + BATCH]
                answers.update(run_in(namespace.path, partial(self._round, batch)))
        self.tables.set_endpoint(
            namespace.ifindex, caller, namespace.mac, namespace.host_mac, namespace.cookie
        )
        return answers

    def _target(self, probe: Probe) -> tuple[Port, str]:
        callee = self.world.thing(probe.callee)
        port = next(p for p in callee.ports if p.name == probe.port)
        if probe.way == NAME:
            return port, self.resolver.look_up(f"{callee.name}.{callee.project}", probe.family)
        index = index_of(callee)
        ranges: dict[tuple[str, int], Any] = {
            (SERVICE, 4): self.config.services4,
            (SERVICE, 6): self.config.services6,
            (CONTAINER, 4): self.config.workloads4,
            (CONTAINER, 6): self.config.workloads6,
        }
        return port, str(ranges[probe.way, probe.family][index])

    def _round(self, probes: list[Probe]) -> dict[Probe, str]:
        """Ask everything at once, then wait once for whatever comes."""
        answers = dict.fromkeys(probes, "")
        waiting: Any = selectors.DefaultSelector()
        for probe in probes:
            port, address = self._target(probe)
            if not address:
                continue
            kind = socket.SOCK_STREAM if port.is_tcp else socket.SOCK_DGRAM
            client = socket.socket(socket.AF_INET6 if probe.family == 6 else socket.AF_INET, kind)
            client.setblocking(False)
            try:
                if port.is_tcp:
                    client.connect_ex((address, port.number))
                else:
                    client.sendto(b"who", (address, port.number))
            except OSError:
                client.close()
                continue
            waiting.register(client, selectors.EVENT_READ, (probe, address))
        end = time.monotonic() + PATIENCE
        while waiting.get_map() and (left := end - time.monotonic()) > 0:
            for key, _ in waiting.select(left):
                probe, address = key.data
                try:
                    data, peer = key.fileobj.recvfrom(64)
                    if not peer or peer[0] == address:
                        answers[probe] = data.decode()
                    else:
                        answers[probe] = f"{data.decode()} from {peer[0]}"
                except OSError:
                    pass
                waiting.unregister(key.fileobj)
                key.fileobj.close()
        for key in list(waiting.get_map().values()):
            key.fileobj.close()
        waiting.close()
        return answers

    def close(self) -> None:
        self._closed.set()
        self.relay.close()
        self.resolver.close()
        for key in list(self._selector.get_map().values()):
            key.fileobj.close()
        for thing in self.world.things:
            namespace = self.namespaces.get(thing.identity)
            if namespace:
                self.tables.remove_endpoint(namespace.ifindex, namespace.cookie)
                network.destroy(self.config, namespace.name, index_of(thing))
        self.tables.remove_endpoint(self.gateway.ifindex, self.gateway.cookie)
        network.destroy(self.config, "gateway", 2)
        for identity in self.boundary.identities:
            self.tables.remove_identity(identity)
        self.tables.set_services([])
