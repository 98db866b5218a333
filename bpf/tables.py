"""What the agent writes into the kernel and reads out of it.

Every change is safe to interrupt: policy of an identity is written under an epoch that isn't in
force and switched by one update; services get a fresh set of backends before they point to it.
What is in force is read back from the maps, so an agent that restarts continues where the kernel is.
"""

from __future__ import annotations

import ipaddress
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence

from bpf import layout, loader
from bpf import sys as bpf
from bpf.entries import (
    ALLOW,
    AUDIT,
    DENY,
    EGRESS,
    INGRESS,
    External,
    Flow,
    Learned,
    Limit,
    Policy,
    Usage,
)
from bpf.in_force import InForce
from bpf.reasons import CODES, REASONS
from bpf.service_tables import Service, ServiceTables
from bpf.slots import Backend
from bpf.tracking import Tracked, TrackingTables
from infra.config import Config

__all__ = [
    "ALLOW",
    "AUDIT",
    "DENY",
    "EGRESS",
    "INGRESS",
    "Backend",
    "External",
    "Flow",
    "Learned",
    "Limit",
    "Policy",
    "Service",
    "Tables",
    "Tracked",
    "Usage",
]

#: Of equal entries the one that rules: deny beats allow, allow beats audit.
_RANK = {AUDIT: 0, ALLOW: 1, DENY: 2}
_ONLY = layout.U32.pack(0)


class Tables(ServiceTables, TrackingTables):
    """The maps of an installation, opened from their pins. One instance for each thread."""

    def __init__(self, config: Config) -> None:
        """Raises ``OSError`` if the kernel side isn't loaded, ``LayoutError`` if it is another version's."""
        folder = loader.pins(config) / "maps"
        self._maps: dict[str, bpf.Map] = {
            name: bpf.Map(
                folder / name, key.size, value.size, bpf.possible_cpus() if name in layout.PER_CPU else 1
            )
            for name, (key, value) in layout.MAPS.items()
        }
        self.configure(config)

    def reader(self) -> Tables:
        """Another instance on the same maps, for another thread that only looks. Ends with this one."""
        made = object.__new__(Tables)
        made._maps = {name: opened.again() for name, opened in self._maps.items()}
        return made

    def close(self) -> None:
        for opened in self._maps.values():
            opened.close()

    def configure(self, config: Config) -> None:
        """Tell the programs the platform's ranges. Told already, nothing is written: whoever opens the tables
        beside the agent mustn't turn the generation back."""
        w4, s4, w6, s6 = config.workloads4, config.services4, config.workloads6, config.services6
        ranges = (
            w4.network_address.packed,
            w4.netmask.packed,
            s4.network_address.packed,
            s4.netmask.packed,
            w6.network_address.packed[:8],
            s6.network_address.packed[:8],
        )
        *told, generation = layout.CONFIG.unpack(self._maps["config"].get(_ONLY) or bytes(layout.CONFIG.size))
        if tuple(told) != ranges:
            self._maps["config"].set(_ONLY, layout.CONFIG.pack(*ranges, generation))

    def _owners_changed(self) -> None:
        """Let the programs look again at who is behind every known flow. After the change, never before."""
        *ranges, generation = layout.CONFIG.unpack(self._maps["config"].get(_ONLY) or b"")
        self._maps["config"].set(_ONLY, layout.CONFIG.pack(*ranges, (generation + 1) % 2**32))

    # Interfaces and addresses.
    def set_endpoint(
        self,
        ifindex: int,
        identity: int,
        mac: bytes,
        host_mac: bytes,
        cookie: int = 0,
        translate: bool = True,
        *,
        foreign: bool = False,
        bridge: int = 0,
    ) -> None:
        """Make an interface known. ``identity`` is what spoofed packets are reported under.

        With a namespace ``cookie`` the socket hooks serve the namespace too; unless ``translate``,
        they leave service addresses as they are, which tc then drops. ``foreign``: a CNI made it, so it
        asks for its neighbours. ``bridge``: the interface that it is a port of.
        """
        value = layout.ENDPOINT.pack(
            identity, layout.ENDPOINT_FOREIGN if foreign else 0, mac, host_mac, bridge
        )
        self.ensure_conntrack(ifindex)
        self._maps["endpoints"].set(layout.U32.pack(ifindex), value)
        if cookie:
            flags = 0 if translate else layout.CALLER_UNTRANSLATED
            self._maps["callers"].set(layout.U64.pack(cookie), layout.CALLER.pack(identity, ifindex, flags))

    def forget_caller(self, cookie: int) -> None:
        """Leave the sockets of a namespace alone; what they send is judged on the wire as before."""
        self._maps["callers"].delete(layout.U64.pack(cookie))

    def remove_endpoint(self, ifindex: int, cookie: int = 0) -> None:
        """Forget an interface, its addresses and its flows. What it still sends is dropped."""
        self._maps["endpoints"].delete(layout.U32.pack(ifindex))
        if cookie:
            self._maps["callers"].delete(layout.U64.pack(cookie))
        else:
            for key, value in self._maps["callers"].items():
                if layout.CALLER.unpack(value)[1] == ifindex:
                    self._maps["callers"].delete(key)
        for key, value in self._maps["ipcache"].items():
            if layout.OWNER.unpack(value)[1] == ifindex:
                self._maps["ipcache"].delete(key)
        self.drop_conntrack(ifindex)
        self._owners_changed()

    def endpoints(self) -> dict[int, int]:
        """Interface index → identity."""
        return {
            layout.U32.unpack(key)[0]: layout.ENDPOINT.unpack(value)[0]
            for key, value in self._maps["endpoints"].items()
        }

    def foreign(self) -> set[int]:
        """Indexes of the interfaces that CNIs made."""
        return {
            layout.U32.unpack(key)[0]
            for key, value in self._maps["endpoints"].items()
            if layout.ENDPOINT.unpack(value)[1] & layout.ENDPOINT_FOREIGN
        }

    def set_address(self, address: str, identity: int, ifindex: int) -> None:
        """An address belongs to an identity, and only this interface may use it; 0: it is on another node."""
        key, value = layout.pack_address(address), layout.OWNER.pack(identity, ifindex)
        if self._maps["ipcache"].get(key) != value:
            self._maps["ipcache"].set(key, value)
            self._owners_changed()

    def remove_address(self, address: str) -> None:
        self._maps["ipcache"].delete(layout.pack_address(address))
        self._owners_changed()

    def here(self, address: str) -> tuple[int, int]:
        """Whose an address of this node is, and whose interface it is behind; 0, 0 if it isn't one."""
        value = self._maps["ipcache"].get(layout.pack_address(address))
        identity, ifindex = layout.OWNER.unpack(value) if value else (0, 0)
        behind = self._maps["endpoints"].get(layout.U32.pack(ifindex))
        return (identity, layout.ENDPOINT.unpack(behind)[0]) if behind else (0, 0)

    def addresses(self) -> dict[str, tuple[int, int]]:
        """Address → (identity, interface index)."""
        return {
            layout.unpack_address(key): layout.OWNER.unpack(value)  # type: ignore[misc]
            for key, value in self._maps["ipcache"].items()
        }

    # The way to other nodes.
    def set_underlays(self, ifindexes: Iterable[int]) -> None:
        """Exactly these interfaces lead to other nodes: addresses that are there may come in by them."""
        wanted = {layout.U32.pack(ifindex) for ifindex in ifindexes}
        table = self._maps["underlays"]
        present = set(table.keys())
        for key in wanted - present:
            table.set(key, layout.U32.pack(0))
        for key in present - wanted:
            table.delete(key)
        if wanted != present:
            self._owners_changed()

    def underlays(self) -> set[int]:
        """Interface indexes."""
        return {layout.U32.unpack(key)[0] for key in self._maps["underlays"].keys()}

    # Policy.
    def apply_identity(
        self,
        identity: int,
        cell: int,
        policy: Iterable[Policy],
        external: Iterable[External] = (),
        above_floor: bool = False,
    ) -> bool:
        """Put exactly these entries in force for an identity; whether anything changed.

        ``above_floor`` is for the resolver alone: its networks are judged before the floor.
        Raises ``OSError`` if a map is full; then the earlier entries stay in force.
        """
        wanted = {
            p[:4]: (p.rule, p.verdict)
            for p in sorted(map(Policy._make, policy), key=lambda p: _RANK[p.verdict])
        }
        outside = {
            e[:3]: (e.rule, e.verdict)
            for e in sorted(map(External._make, external), key=lambda e: _RANK[e.verdict])
        }
        key = layout.U32.pack(identity)
        flags = layout.IDENTITY_ABOVE_FLOOR if above_floor else 0
        flags |= _limit_flags(self._maps["limits"].get(key))
        current = self._maps["identities"].get(key)
        # One that comes back begins where no flow that it had before can be of the same epoch.
        begin = (secrets.randbits(32), 0, 0)
        epoch, _, known_flags = layout.IDENTITY.unpack(current) if current else begin
        # Reading the index also removes what a crash left under epochs that aren't in force.
        old_policy, old_external = self._index.get(identity)
        if current and (old_policy, old_external, known_flags) == (wanted, outside, flags):
            return False
        self._maps["usages"].add(key, layout.USAGE.pack(*[0] * 7, secrets.randbelow(2**32 - 1) + 1))
        fresh = (epoch + 1) % 2**32
        try:
            for (remote, port, protocol, direction), value in wanted.items():
                entry = layout.POLICY_KEY.pack(identity, fresh, remote, port, protocol, direction)
                self._maps["policy"].set(entry, layout.RULE.pack(*value))
            for (network, port, protocol), value in outside.items():
                entry = self._external_key(identity, fresh, network, port, protocol)
                self._maps["external"].set(entry, layout.RULE.pack(*value))
            self._maps["identities"].set(key, layout.IDENTITY.pack(fresh, cell, flags))
        except OSError:
            self._drop_epoch(identity, fresh, wanted, outside)
            if not current:
                self._maps["usages"].delete(key)
            raise
        self._drop_epoch(identity, epoch, old_policy, old_external)
        self._index.put(identity, wanted, outside)
        return True

    def remove_identity(self, identity: int) -> None:
        """Nothing is allowed to or from this identity any more."""
        key = layout.U32.pack(identity)
        current = self._maps["identities"].get(key)
        for name in ("identities", "usages", "limits"):
            self._maps[name].delete(key)
        if current:
            for key in self._maps["learned"].keys():
                if layout.LEARNED_KEY.unpack(key)[0] == identity:
                    self._maps["learned"].delete(key)
            policy, external = self._index.pop(identity)
            self._drop_epoch(identity, layout.IDENTITY.unpack(current)[0], policy, external)

    def callers(self, identity: int) -> frozenset[int]:
        """Identities that a policy in force names for what comes in; 0: any."""
        return frozenset(self._index.callers(identity))

    def identities(self) -> list[int]:
        """Identities that have a policy in force."""
        return [layout.U32.unpack(key)[0] for key in self._maps["identities"].keys()]

    @property
    def _index(self) -> InForce:
        """What is in force, by identity; read once from the kernel, then kept."""
        if not hasattr(self, "_cached_index"):
            epochs = {
                layout.U32.unpack(k)[0]: layout.IDENTITY.unpack(v)[0]
                for k, v in self._maps["identities"].items()
            }
            index: dict[int, tuple[dict, dict]] = {identity: ({}, {}) for identity in epochs}
            stale = []
            for key, value in self._maps["policy"].items():
                identity, epoch, *rest = layout.POLICY_KEY.unpack(key)
                if epochs.get(identity) == epoch:
                    index[identity][0][tuple(rest)] = layout.RULE.unpack(value)
                else:
                    stale.append(key)
            self._maps["policy"].delete_all(stale)
            for key, value in self._maps["external"].items():
                prefix, identity, epoch, port, protocol, raw = layout.EXTERNAL_KEY.unpack(key)
                if epochs.get(identity) == epoch:
                    network = _network(
                        prefix - layout.EXTERNAL_FIXED_BITS, raw, bool(protocol & layout.EXTERNAL_V4)
                    )
                    index[identity][1][(network, port, protocol & 0xFF)] = layout.RULE.unpack(value)
                else:
                    self._maps["external"].delete(key)
            self._cached_index = InForce()
            for known, (policy, external) in index.items():
                self._cached_index.put(known, policy, external)
        return self._cached_index

    def _drop_epoch(self, identity: int, epoch: int, policy: dict, external: dict) -> None:
        # What denies goes last: whoever still looks at these entries sees no more allowed than there was.
        for remote, port, protocol, direction in sorted(policy, key=lambda each: policy[each][1] == DENY):
            self._maps["policy"].delete(
                layout.POLICY_KEY.pack(identity, epoch, remote, port, protocol, direction)
            )
        for network, port, protocol in external:
            self._maps["external"].delete(self._external_key(identity, epoch, network, port, protocol))

    @staticmethod
    def _external_key(identity: int, epoch: int, network: str, port: int, protocol: int) -> bytes:
        prefix, raw = layout.pack_network(network)
        bits = prefix + layout.EXTERNAL_FIXED_BITS
        family = 0 if ":" in network else layout.EXTERNAL_V4
        return layout.EXTERNAL_KEY.pack(bits, identity, epoch, port, protocol | family, raw)

    # The floor.
    def set_floor(self, prefixes: Sequence[tuple[str, str]]) -> None:
        """Networks that no declaration opens, with a reason code (``FLOOR`` or ``NODE``) each.

        Raises ``OSError`` if they don't all fit; what was there and what did fit is in force then.
        """
        wanted = {
            layout.FLOOR_KEY.pack(*layout.pack_network(network)): layout.U32.pack(CODES[reason])
            for network, reason in prefixes
        }
        floor = self._maps["floor_prefixes"]
        try:
            for key, value in wanted.items():  # additions first: at no moment is there less floor
                if floor.get(key) != value:
                    floor.set(key, value)
            for key in floor.keys():
                if key not in wanted:
                    floor.delete(key)
        finally:
            self._owners_changed()

    # Limits.
    def set_limits(self, limits: Mapping[int, Limit]) -> None:
        """Put exactly these limits in force, by identity."""
        wanted = {
            layout.U32.pack(identity): _limit(limit) for identity, limit in limits.items() if any(limit)
        }
        table = self._maps["limits"]
        for key, value in wanted.items():
            if table.get(key) != value:
                table.set(key, value)
                self._limited(key, value)
        for key in table.keys():
            if key not in wanted:
                self._limited(key, None)
                table.delete(key)

    def _limited(self, key: bytes, limit: bytes | None) -> None:
        """Tell the programs whether to look for limits at all, and whether at each packet."""
        current = self._maps["identities"].get(key)
        if current is None:
            return
        epoch, cell, flags = layout.IDENTITY.unpack(current)
        flags = flags & ~(layout.IDENTITY_LIMITED | layout.IDENTITY_METERED) | _limit_flags(limit)
        self._maps["identities"].set(key, layout.IDENTITY.pack(epoch, cell, flags))

    def usage(self) -> dict[int, Usage]:
        """What each identity uses."""
        return {
            layout.U32.unpack(key)[0]: Usage(layout.USAGE.unpack(value)[4])
            for key, value in self._maps["usages"].items()
        }

    # Addresses behind names.
    def learn(self, identity: int, address: str, port: int, protocol: int, rule: int) -> None:
        """Let a consumer reach an external address. Raises ``OSError`` if the table is full."""
        key = layout.LEARNED_KEY.pack(identity, port, protocol, layout.pack_address(address))
        value = layout.RULE.pack(rule, ALLOW)
        if self._maps["learned"].get(key) != value:
            self._maps["learned"].set(key, value)

    def forget_learned(self, identity: int, address: str, port: int, protocol: int) -> None:
        """Take it back; flows that it let pass end with their next packet."""
        key = layout.LEARNED_KEY.pack(identity, port, protocol, layout.pack_address(address))
        self._maps["learned"].delete(key)

    def learned(self) -> dict[Learned, int]:
        """What is in force, and by which rule."""
        found = {}
        for key, value in self._maps["learned"].items():
            identity, port, protocol, raw = layout.LEARNED_KEY.unpack(key)
            address = layout.unpack_address(raw)
            found[Learned(identity, address, port, protocol)] = layout.RULE.unpack(value)[0]
        return found

    # What the programs saw.
    def drain_flows(self, mine: Callable[[int], bool] = lambda source: True) -> list[Flow]:
        """Take aggregated flows out of the kernel, of those sources that ``mine`` is true for."""
        flows = []
        for key in self._maps["edges"].keys():
            if not mine(layout.EDGE.unpack(key)[0]):
                continue
            value = self._maps["edges"].take(key)
            if value is None:
                continue
            source, destination, raw, port, protocol, direction, verdict, reason, _ = layout.EDGE.unpack(key)
            packets, size, _last, rule, _ = layout.EDGE_COUNT.unpack(value)
            flows.append(
                Flow(
                    source=source,
                    destination=destination,
                    remote=layout.unpack_address(raw),
                    port=port,
                    protocol=protocol,
                    direction=direction,
                    allowed=verdict != DENY,
                    reason=REASONS[reason].code if reason in REASONS else f"REASON_{reason}",
                    rule=rule,
                    packets=packets,
                    bytes=size,
                )
            )
        return flows

    def counters(self) -> dict[str, int]:
        """Failures inside the programs since they were loaded, by name; zero ones are left out."""
        found = {}
        for number, name in enumerate(layout.COUNTERS):
            raw = self._maps["counters"].get(layout.U32.pack(number)) or b""
            total = sum(value for (value,) in layout.U64.iter_unpack(raw))
            if total:
                found[name] = total
        return found

    def pressure(self) -> dict[str, float]:
        """How full the maps are that the agent fills, 0 to 1."""
        return self.filled() | self.counted()

    def filled(self) -> dict[str, float]:
        """As ``pressure``, of the maps whose entries are remembered."""
        policy, external = self._index.sizes()
        backends = sum(len(service.slots) for service in self._services.values())
        return self._shares(
            {"policy": policy, "external": external, "services": len(self._services), "backends": backends}
        )

    def counted(self) -> dict[str, float]:
        """As ``pressure``, of the maps whose entries have to be counted."""
        names = ("endpoints", "callers", "ipcache", "identities", "learned", "limits")
        return self._shares({name: len(self._maps[name].keys()) for name in names})

    def _shares(self, used: dict[str, int]) -> dict[str, float]:
        return {name: number / self._maps[name].max_entries for name, number in used.items()}


def _limit_flags(limit: bytes | None) -> int:
    """What the programs are told beside the policy: connections count when they open, bytes always."""
    if limit is None:
        return 0
    metered = any(layout.LIMIT.unpack(limit)[:2])
    return layout.IDENTITY_LIMITED | (layout.IDENTITY_METERED if metered else 0)


def _limit(limit: Limit) -> bytes:
    """A bucket may run ahead by a tenth of a second, and by two of the largest packets at least."""
    rates = (limit.out_bytes, limit.in_bytes)
    bursts = [max(100_000_000, 2 * 65536 * 10**9 // rate) if rate else 0 for rate in rates]
    return layout.LIMIT.pack(*rates, *bursts, limit.new_connections, limit.connections)


def _network(prefix: int, raw: bytes, v4: bool) -> str:
    """Text form of a network of ``pack_network``."""
    if v4:
        return f"{ipaddress.IPv4Address(raw[12:])}/{prefix - 96}"
    return f"{ipaddress.IPv6Address(raw)}/{prefix}"
