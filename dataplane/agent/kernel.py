"""The kernel's tables and the namespaces of a node, behind one lock."""

from __future__ import annotations

import contextlib
import errno
import logging
import threading
from collections.abc import Iterable, Mapping
from typing import Any

from bpf.tables import External, Flow, Policy, Service, Tables
from cells.boundary import Topology, compile_topology
from dataplane import addresses
from dataplane.agent import network, parts, selftest, upgrade, upstreams
from dataplane.agent.balancing import services as in_service
from dataplane.agent.connections import Backend as Gone
from dataplane.agent.connections import Connections
from dataplane.agent.following import Rules
from dataplane.agent.kernel_pods import PodTables
from dataplane.agent.limits import apply as apply_limits
from dataplane.agent.limits import usage as usage_of
from dataplane.agent.node_addresses import node_addresses
from infra.config import Config

log = logging.getLogger("cytoplane.agent")

#: Reach what they are given, in the floor too: servers of names, other nodes' gateways.
_ABOVE_FLOOR = frozenset({addresses.IDENTITY_RESOLVER, addresses.IDENTITY_GATEWAY_NORTH})
#: Stands for every identity.
ANYBODY = 0


class KernelError(RuntimeError):
    """The kernel side can't be brought up; the message says why."""


def refusal(what: str, error: OSError) -> str:
    """A sentence about a table that didn't take something."""
    if error.errno in (errno.E2BIG, errno.ENOSPC):
        return f"{what} don't fit into the kernel's table, which is full; the earlier ones stay in force"
    return f"{what} can't be written into the kernel's table: {error.strerror}"


def platform_topology(config: Config) -> Topology:
    """A plane without cells: what gateway, resolver and builds may do before there is a snapshot."""
    north = addresses.workload(config, addresses.GATEWAY_NORTH)
    resolver = addresses.workload(config, addresses.RESOLVER)
    index = addresses.workload(config, addresses.INDEX_PROXY)
    return Topology(
        cells=(),
        north4=north.v4,
        north6=north.v6,
        north_port=addresses.NORTH_HTTP_PORT,
        resolver4=resolver.v4,
        resolver6=resolver.v6,
        index4=index.v4,
        index6=index.v6,
        index_port=addresses.INDEX_PROXY_PORT,
    )


class Kernel(PodTables):
    """Everything that touches tables goes through here; calls from any thread."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self._lock = threading.RLock()
        self._tables = Tables(config)
        #: For figures, which may take their time: no change of policy waits for them.
        self._reader, self._reading = self._tables.reader(), threading.Lock()
        self.connections = Connections(config)
        self._leaving: list[Gone] = []
        #: Services in force, by hashes of what they are; None: to be looked at one by one.
        self._served: dict[bytes, int] | None = None
        #: What those were made of, where that is known without a look.
        self._served_of: tuple[bytes, int] | None = None
        #: Limits in force, or a stamp of them; None: to be looked at one by one.
        self._limits: Any = None
        #: Everything of the last boundary is in force.
        self._followed = False
        #: Identities whose rules are those of a later generation, and of which.
        self._ahead: dict[str, int] = {}
        #: Identities that were taken out ahead, with what the kernel had learned for them.
        self._emptied: set[int] = set()
        self._known: dict[str, network.Namespace] = {}
        self._gateway_extra: dict[int, network.Address] = {}
        self._declared_floor: list[tuple[str, str]] = []
        self._floor: list[tuple[str, str]] = []
        self._floor_problem = ""
        self.problems: list[str] = []
        #: Another layout's programs are in force: this one's tables aren't filled yet.
        self.holding = upgrade.needed(config)
        #: Why no workload may start at present, as a sentence.
        self.distrust = ""

    # The platform's own namespaces.
    def ensure_platform(self) -> None:
        """Namespaces of gateway, resolver, index proxy and builds, with their policy."""
        network.sweep(self._tables)
        platform = compile_topology(platform_topology(self.config))
        for identity, entry in platform.identities.items():
            if identity not in self._tables.identities():
                self._tables.apply_identity(identity, entry.cell, [Policy(*p) for p in entry.policy])
        for identity, policy in selftest.policies().items():
            self._tables.apply_identity(identity, 0, policy)
        for service in selftest.services(self.config):
            self._tables.set_service(service)
        for name, index, identity, hooked in (
            ("gateway", addresses.GATEWAY_NORTH, addresses.IDENTITY_GATEWAY_NORTH, False),
            ("resolver", addresses.RESOLVER, addresses.IDENTITY_RESOLVER, True),
            ("index", addresses.INDEX_PROXY, addresses.IDENTITY_INDEX_PROXY, True),
            *(
                (f"build-{slot}", addresses.BUILD_FIRST + slot, addresses.IDENTITY_BUILDS[slot], True)
                for slot in range(addresses.BUILD_SLOTS)
            ),
            *(
                (f"selftest-{number}", addresses.SELFTEST_FIRST + number, identity, True)
                for number, identity in enumerate(addresses.IDENTITY_SELFTEST)
            ),
        ):
            pair = addresses.workload(self.config, index)
            self.ensure_namespace(name, index, [network.Address(pair.v4, pair.v6, identity)], hooked=hooked)

    def ensure_namespace(
        self,
        name: str,
        number: int,
        owned: list[network.Address],
        *,
        hooked: bool = True,
        translate: bool = True,
    ) -> network.Namespace:
        """The namespace, adopted as it is or made anew."""
        with self._lock:
            known = self._known.get(name)
            if known is not None and known.path.exists():
                return known
            found = network.adopt(self.config, name, number, judged=not self.holding)
            if found is None:
                found = network.connect(self.config, self._tables, name, number, owned, hooked, translate)
            else:
                network.introduce(self._tables, found, owned, hooked, translate)
            self._known[name] = found
            identities = {a.identity for a in owned}
            self.connections.placed(name, found.path, found.ifindex, identities)
            # What it has open may be older than this agent.
            self._changed(identities)
            return found

    def take_over(self, endpoints: list[dict[str, Any]]) -> bool:
        """Let this version's programs judge, once its tables say all that the earlier one's did.

        ``endpoints`` are those of the snapshot that was applied. Whether there was anything to do.
        """
        with self._lock:
            if not self.holding and not upgrade.earlier(self.config):
                return False
            for endpoint in endpoints:
                if network.path_of(self.config, endpoint["id"]).exists():
                    self.ensure_endpoint(endpoint)
            upgrade.finish(self.config)
            self.holding = False
        self._changed({ANYBODY})
        log.info("this layout's programs are in force")
        return True

    def ensure_endpoint(self, endpoint: dict[str, Any]) -> network.Namespace:
        """A replica's namespace, as ``ensure_namespace``."""
        own = [network.Address(endpoint["v4"], endpoint["v6"], endpoint["identity"])]
        translate = endpoint.get("translate", True)
        return self.ensure_namespace(endpoint["id"], endpoint["number"], own, translate=translate)

    def remove_namespace(self, name: str, number: int) -> None:
        with self._lock:
            known = self._known.pop(name, None) or network.adopt(
                self.config, name, number, judged=not self.holding
            )
            if known is not None:
                self._tables.remove_endpoint(known.ifindex, known.cookie)
            network.destroy(self.config, name, number)
            self.connections.removed(name)

    def backend_left(self, name: str, identity: int, pair: tuple[str, str], *, stuck: bool = False) -> None:
        """End the sockets that wait for a replica, once no service leads to it any more."""
        with self._lock:
            peers = self._tables.callers(identity)
            self._leaving.append(Gone(name, pair, peers, stuck))

    # Desired state.
    def follow(self, rules: Rules | None, generation: int) -> None:
        """The rules of some identities, ahead of the rest of their generation.

        What can't be is left to ``apply``, which comes after. None: it isn't known which are others, and
        generations are numbered anew.
        """
        changed: set[int] = set()
        with self._lock:
            if rules is None:
                self._ahead.clear()
                return
            if self.holding or not self._followed:
                return
            self._ahead |= dict.fromkeys(rules, generation)
            for text, entry in rules.items():
                if entry is None:
                    self._tables.remove_identity(int(text))
                    changed.add(int(text))
                    # A later generation may have it again before this one is applied.
                    self._emptied.add(int(text))
                    self._limits = None
                    continue
                external = [External(*e) for e in entry["external"]]
                with contextlib.suppress(OSError):
                    if self._tables.apply_identity(
                        int(text), entry["cell"], [Policy(*p) for p in entry["policy"]], external
                    ):
                        changed.add(int(text))
        self._changed(changed)

    def apply(
        self, boundary: Mapping[str, Any], rules: Rules | None = None, generation: int | None = None
    ) -> None:
        """Floor, identities and the gateway's addresses. Additions come before what needs them.

        ``rules``: those that are other than in the boundary that was applied last, if that is known.
        What a later generation than this one has brought already stays.
        Raises ``KernelError`` when everything that can be is in force and something couldn't: of that
        the earlier entries stay.
        """
        changed: set[int] = set()
        failures: list[str] = []
        # Before the lock: what a later generation closes never waits for a command.
        own = node_addresses(self.config)
        with self._lock:
            self._declared_floor = [(n, r) for n, r in boundary["floor"] if not self._own(n)]
            self._set_floor(own)
            self._gateway_addresses(boundary)
            only = rules if self._followed else None
            self._followed = False
            self._ahead = {
                t: at for t, at in self._ahead.items() if generation is not None and at > generation
            }
            wanted, gone = self._concerned(boundary["identities"], only)
            kept = set()
            for text, entry in wanted:
                identity = int(text)
                kept.add(identity)
                if text in self._ahead:
                    continue
                try:
                    different = self._tables.apply_identity(
                        identity,
                        entry["cell"],
                        [Policy(*p) for p in entry["policy"]],
                        [*(External(*e) for e in entry["external"]), *self._upstream(identity, boundary)],
                        above_floor=identity in _ABOVE_FLOOR,
                    )
                except OSError as error:
                    failures.append(refusal(f"the rules of identity {identity}", error))
                    continue
                if different:
                    changed.add(identity)
            for identity in self._tables.identities() if gone is None else gone:
                apart = identity in addresses.IDENTITY_SELFTEST or str(identity) in self._ahead
                if identity not in kept and not apart:
                    self._tables.remove_identity(identity)
                    changed.add(identity)
            limits = parts.stamp(boundary, "limits") or boundary.get("limits", {})
            if self._limits != limits:
                try:
                    apply_limits(self._tables, boundary)
                    self._limits = limits
                except OSError as error:
                    failures.append(refusal("the limits of components", error))
            self._followed = not failures
        self._changed(changed)
        if failures:
            raise KernelError(f"{'; '.join(failures[:3])} ({len(failures)} refused)")

    def emptied(self) -> set[int]:
        """Identities that lost what was learned for them since the last call, whoever has them now."""
        with self._lock:
            found, self._emptied = self._emptied, set()
        return found

    @staticmethod
    def _concerned(
        identities: Mapping[str, dict[str, Any]], only: Rules | None
    ) -> tuple[Iterable[tuple[str, dict[str, Any]]], list[int] | None]:
        """Those to be looked at, the platform's own among them, and those that are gone; None: all others."""
        known = identities if isinstance(identities, parts.Identities) else None
        if only is None:
            return known.stream() if known is not None else identities.items(), None
        ours = (
            known.platforms()
            if known is not None
            else {text: entry for text, entry in identities.items() if parts.platforms(int(text))}
        )
        cells = {text: entry for text, entry in only.items() if not parts.platforms(int(text))}
        present = {text: entry for text, entry in cells.items() if entry is not None}
        return {**ours, **present}.items(), [int(text) for text in cells.keys() - present.keys()]

    def _changed(self, identities: set[int]) -> None:
        """Have the connections of these looked at; not by tables that aren't filled yet."""
        if not self.holding:
            self.connections.changed(identities)

    def _upstream(self, identity: int, boundary: Mapping[str, Any]) -> list[External]:
        """What the resolver may ask outside, if anybody declares names there."""
        if identity != addresses.IDENTITY_RESOLVER or not boundary.get("external_names"):
            return []
        return upstreams.entries(upstreams.servers(self.config))

    @property
    def floor(self) -> list[tuple[str, str]]:
        """The floor in force: networks and reasons."""
        return self._floor

    def closed(self) -> list[str]:
        """The node's own addresses, which are closed to every workload on it; as networks."""
        return [network_text for network_text, reason in self._floor if reason == "NODE"]

    def refresh_floor(self) -> None:
        """Close the addresses that the node has got since; those it lost are open again."""
        own = node_addresses(self.config)
        with self._lock, contextlib.suppress(KernelError):  # said by ``health``
            if self._declared_floor:
                self._set_floor(own)

    def _set_floor(self, own: list[tuple[str, str]]) -> None:
        """Raises ``KernelError`` if it doesn't fit: then as much of it as can be is in force."""
        floor = [*self._declared_floor, *own]
        if floor != self._floor or self._floor_problem:
            self._floor_problem = ""
            try:
                self._tables.set_floor(floor)
            except OSError as error:
                self._floor_problem = refusal("the networks that nobody may reach", error)
                raise KernelError(self._floor_problem) from error
            self._floor = floor
            self._changed({ANYBODY})

    def _own(self, network_text: str) -> bool:
        """Ranges of the platform itself: judged by identity, so they are no floor for the kernel."""
        own = (self.config.workloads4, self.config.services4, self.config.workloads6, self.config.services6)
        return network_text in {str(n) for n in own}

    def _gateway_addresses(self, boundary: Mapping[str, Any]) -> None:
        pairs: dict[int, list[str]] = {}
        for address, (identity, part) in boundary["addresses"].items():
            if part == "gateway" and identity != addresses.IDENTITY_GATEWAY_NORTH:
                pairs.setdefault(identity, []).append(address)
        wanted = {}
        for identity, both in pairs.items():
            v4, v6 = sorted(both, key=lambda text: ":" in text)
            wanted[identity] = network.Address(v4, v6, identity)
        if self._followed and wanted == self._gateway_extra:
            return
        namespace = self._known["gateway"]
        own = {addresses.IDENTITY_GATEWAY_NORTH, *wanted, *self._gateway_extra}
        self.connections.placed("gateway", namespace.path, namespace.ifindex, own)
        present = self._tables.addresses()
        new = [
            a
            for a in wanted.values()
            if present.get(a.v4) != (a.identity, namespace.ifindex) or a.identity not in self._gateway_extra
        ]
        gone = [(a.v4, a.v6) for i, a in self._gateway_extra.items() if i not in wanted]
        network.set_addresses(self._tables, namespace, new, gone)
        self._gateway_extra = wanted

    def serve(self, boundary: Mapping[str, Any], serving: set[str] | None) -> int:
        """Its services with the backends that may serve, looked at where they can be others than before."""
        stamp = parts.stamp(boundary, "services")
        made_of = None if stamp is None else (stamp, hash(serving if serving is None else frozenset(serving)))
        with self._lock:
            same = made_of is not None and self._served is not None and self._served_of == made_of
        if same:
            self._let_go()
            return 0
        number = self.set_services(boundary["services"], serving)
        with self._lock:
            self._served_of = made_of
        return number

    def set_services(self, services: list[dict[str, Any]], serving: set[str] | None) -> int:
        """Services with the backends that may serve; the number that changed."""
        found = in_service(services, serving)
        found += selftest.services(self.config)
        wanted = {service.key: service for service in found}
        with self._lock:
            before, self._served = self._served, None
            self._served_of = None
            try:
                if before is None:
                    number = self._tables.set_services(found)
                else:
                    number = self._set_services(before, wanted)
            except OSError as error:
                raise KernelError(refusal("the services", error)) from error
            self._served = {key: hash(service) for key, service in wanted.items()}
        self._let_go()
        return number

    def _let_go(self) -> None:
        """End the sockets that wait for backends which no service leads to any more."""
        with self._lock:
            leaving, self._leaving = self._leaving, []
        for gone in leaving:
            self.connections.left(gone)

    def _set_services(self, before: dict[bytes, int], wanted: dict[bytes, Service]) -> int:
        different = [service for key, service in wanted.items() if before.get(key) != hash(service)]
        gone = before.keys() - wanted.keys()
        for service in different:
            self._tables.set_service(service)
        for key in gone:
            self._tables.remove_service(key)
        return len(different) + len(gone)

    # What the kernel says.
    def usage(self, boundary: Mapping[str, Any]) -> dict[str, int]:
        """What the components of desired state use of their limits: open connections by identity."""
        with self._reading:
            return usage_of(self._reader, boundary)

    def flows(self) -> list[Flow]:
        with self._reading:
            # A build's are its builder's to take: they belong into that build's log.
            apart = {*addresses.IDENTITY_BUILDS, *addresses.IDENTITY_SELFTEST}
            return self._reader.drain_flows(lambda source: source not in apart)

    def interfaces(self) -> dict[int, str]:
        """Host sides of the namespaces that are in the tables, with the names of those."""
        with self._lock:
            return {known.ifindex: known.name for known in self._known.values()}

    def counters(self) -> dict[str, int]:
        """Failures that the programs counted since they were loaded."""
        with self._reading:
            return self._reader.counters()

    def selftest(self) -> list[str]:
        """Make the live test; what doesn't work, as sentences."""
        with self._lock:
            asker, answerer = (self._known[f"selftest-{number}"].path for number in (0, 1))
        # Twice before it is believed: a machine that is very busy may just have been late.
        problems = selftest.run(self.config, asker, answerer) and selftest.run(self.config, asker, answerer)
        with self._reading:
            self._reader.drain_flows(lambda source: source in addresses.IDENTITY_SELFTEST)
        return problems

    def health(self) -> list[str]:
        """What is wrong with the kernel side, as sentences."""
        with self._lock:
            shares = self._tables.filled()
        with self._reading:
            shares |= self._reader.counted()
        problems = [
            f"the kernel table `{n}` is {share:.0%} full" for n, share in shares.items() if share > 0.9
        ]
        if self._floor_problem:
            problems.append(self._floor_problem)
        if self.connections.problem:
            problems.append(self.connections.problem)
        return problems

    def namespaces(self) -> list[str]:
        return network.listing(self.config)
