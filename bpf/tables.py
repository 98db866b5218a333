"""What the agent writes into the kernel and reads out of it.

Every change is safe to interrupt: policy of an identity is written under an epoch that isn't in
force and switched by one update; services get a fresh set of backends before they point to it.
What is in force is read back from the maps, so an agent that restarts continues where the kernel is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from bpf import layout, loader
from bpf import sys as bpf
from bpf.reasons import CODES, REASONS
from infra.config import Config

EGRESS, INGRESS = 0, 1
ALLOW, DENY = 1, 2


class Policy(NamedTuple):
    """An entry of an identity's policy; ``port`` 0 any port, ``remote`` 0 any identity."""

    remote: int
    port: int
    protocol: int
    direction: int
    verdict: int
    rule: int


class External(NamedTuple):
    """Egress to a network, e.g. ``203.0.113.0/24``."""

    network: str
    port: int
    protocol: int
    verdict: int
    rule: int


class Service(NamedTuple):
    """A service address and port as ``consumer`` (0: anybody) sees it; backends are (address, port)."""

    consumer: int
    address: str
    port: int
    protocol: int
    backends: tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class Flow:
    """Aggregated flows since the last drain."""

    source: int
    destination: int
    remote: str
    port: int
    protocol: int
    direction: int
    allowed: bool
    reason: str
    rule: int
    packets: int
    bytes: int


class Tables:
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

    _next_service: int

    def close(self) -> None:
        for opened in self._maps.values():
            opened.close()

    def configure(self, config: Config) -> None:
        """Tell the programs the platform's ranges."""
        w4, s4, w6, s6 = config.workloads4, config.services4, config.workloads6, config.services6
        value = layout.CONFIG.pack(
            w4.network_address.packed,
            w4.netmask.packed,
            s4.network_address.packed,
            s4.netmask.packed,
            w6.network_address.packed[:8],
            s6.network_address.packed[:8],
        )
        self._maps["config"].set(layout.U32.pack(0), value)

    # Interfaces and addresses.
    def set_endpoint(self, ifindex: int, identity: int, mac: bytes, host_mac: bytes, cookie: int = 0) -> None:
        """Make an interface known. ``identity`` is what spoofed packets are reported under.

        With a namespace ``cookie`` the socket hooks serve the namespace too.
        """
        value = layout.ENDPOINT.pack(identity, 0, mac, host_mac)
        self._maps["endpoints"].set(layout.U32.pack(ifindex), value)
        if cookie:
            self._maps["callers"].set(layout.U64.pack(cookie), layout.CALLER.pack(identity, ifindex))

    def forget_caller(self, cookie: int) -> None:
        """Leave the sockets of a namespace alone; what they send is judged on the wire as before."""
        self._maps["callers"].delete(layout.U64.pack(cookie))

    def remove_endpoint(self, ifindex: int, cookie: int = 0) -> None:
        """Forget an interface, its addresses and its flows. What it still sends is dropped."""
        self._maps["endpoints"].delete(layout.U32.pack(ifindex))
        if cookie:
            self._maps["callers"].delete(layout.U64.pack(cookie))
        for key, value in self._maps["ipcache"].items():
            if layout.OWNER.unpack(value)[1] == ifindex:
                self._maps["ipcache"].delete(key)
        self.purge_conntrack(ifindex)

    def endpoints(self) -> dict[int, int]:
        """Interface index → identity."""
        return {
            layout.U32.unpack(key)[0]: layout.ENDPOINT.unpack(value)[0]
            for key, value in self._maps["endpoints"].items()
        }

    def set_address(self, address: str, identity: int, ifindex: int) -> None:
        """An address belongs to an identity, and only this interface may use it."""
        key, value = layout.pack_address(address), layout.OWNER.pack(identity, ifindex)
        if self._maps["ipcache"].get(key) != value:
            self._maps["ipcache"].set(key, value)

    def remove_address(self, address: str) -> None:
        self._maps["ipcache"].delete(layout.pack_address(address))

    def addresses(self) -> dict[str, tuple[int, int]]:
        """Address → (identity, interface index)."""
        return {
            layout.unpack_address(key): layout.OWNER.unpack(value)  # type: ignore[misc]
            for key, value in self._maps["ipcache"].items()
        }

    def purge_conntrack(self, ifindex: int) -> None:
        """Forget the flows of an interface, before its address is given again."""
        for key in self._maps["conntrack"].keys():
            if layout.FLOW_ID.unpack(key)[0] == ifindex:
                self._maps["conntrack"].delete(key)

    # Policy.
    def apply_identity(
        self, identity: int, cell: int, policy: Iterable[Policy], external: Iterable[External] = ()
    ) -> bool:
        """Put exactly these entries in force for an identity; whether anything changed.

        Raises ``OSError`` if a map is full; then the earlier entries stay in force.
        """
        wanted = {
            p[:4]: (p.rule, p.verdict) for p in sorted(map(Policy._make, policy), key=lambda p: p.verdict)
        }
        outside = {e[:3]: (e.rule, e.verdict) for e in map(External._make, external)}
        key = layout.U32.pack(identity)
        current = self._maps["identities"].get(key)
        epoch = layout.IDENTITY.unpack(current)[0] if current else 0
        # Reading the index also removes what a crash left under epochs that aren't in force.
        old_policy, old_external = self._index.get(identity, ({}, {}))
        if current and (old_policy, old_external) == (wanted, outside):
            return False
        fresh = (epoch + 1) % 2**32
        try:
            for (remote, port, protocol, direction), value in wanted.items():
                entry = layout.POLICY_KEY.pack(identity, fresh, remote, port, protocol, direction)
                self._maps["policy"].set(entry, layout.RULE.pack(*value))
            for (network, port, protocol), value in outside.items():
                entry = self._external_key(identity, fresh, network, port, protocol)
                self._maps["external"].set(entry, layout.RULE.pack(*value))
        except OSError:
            self._drop_epoch(identity, fresh, wanted, outside)
            raise
        self._maps["identities"].set(key, layout.IDENTITY.pack(fresh, cell))
        self._drop_epoch(identity, epoch, old_policy, old_external)
        self._index[identity] = (wanted, outside)
        return True

    def remove_identity(self, identity: int) -> None:
        """Nothing is allowed to or from this identity any more."""
        current = self._maps["identities"].get(layout.U32.pack(identity))
        self._maps["identities"].delete(layout.U32.pack(identity))
        if current:
            policy, external = self._index.pop(identity, ({}, {}))
            self._drop_epoch(identity, layout.IDENTITY.unpack(current)[0], policy, external)

    def identities(self) -> list[int]:
        """Identities that have a policy in force."""
        return [layout.U32.unpack(key)[0] for key in self._maps["identities"].keys()]

    @property
    def _index(self) -> dict[int, tuple[dict, dict]]:
        """What is in force, by identity; read once from the kernel, then kept."""
        if not hasattr(self, "_cached_index"):
            epochs = {
                layout.U32.unpack(k)[0]: layout.IDENTITY.unpack(v)[0]
                for k, v in self._maps["identities"].items()
            }
            index: dict[int, tuple[dict, dict]] = {identity: ({}, {}) for identity in epochs}
            for key, value in self._maps["policy"].items():
                identity, epoch, *rest = layout.POLICY_KEY.unpack(key)
                if epochs.get(identity) == epoch:
                    index[identity][0][tuple(rest)] = layout.RULE.unpack(value)
                else:
                    self._maps["policy"].delete(key)
            for key, value in self._maps["external"].items():
                prefix, identity, epoch, port, protocol, raw = layout.EXTERNAL_KEY.unpack(key)
                if epochs.get(identity) == epoch:
                    network = _network(prefix - layout.EXTERNAL_FIXED_BITS, raw)
                    index[identity][1][(network, port, protocol)] = layout.RULE.unpack(value)
                else:
                    self._maps["external"].delete(key)
            self._cached_index = index
        return self._cached_index

    def _drop_epoch(self, identity: int, epoch: int, policy: dict, external: dict) -> None:
        for remote, port, protocol, direction in policy:
            self._maps["policy"].delete(
                layout.POLICY_KEY.pack(identity, epoch, remote, port, protocol, direction)
            )
        for network, port, protocol in external:
            self._maps["external"].delete(self._external_key(identity, epoch, network, port, protocol))

    @staticmethod
    def _external_key(identity: int, epoch: int, network: str, port: int, protocol: int) -> bytes:
        prefix, raw = layout.pack_network(network)
        bits = prefix + layout.EXTERNAL_FIXED_BITS
        return layout.EXTERNAL_KEY.pack(bits, identity, epoch, port, protocol, raw)

    # The floor.
    def set_floor(self, prefixes: Sequence[tuple[str, str]]) -> None:
        """Networks that no declaration opens, with a reason code (``FLOOR`` or ``NODE``) each."""
        wanted = {
            layout.FLOOR_KEY.pack(*layout.pack_network(network)): layout.U32.pack(CODES[reason])
            for network, reason in prefixes
        }
        floor = self._maps["floor_prefixes"]
        for key, value in wanted.items():  # additions first: at no moment is there less floor
            if floor.get(key) != value:
                floor.set(key, value)
        for key in floor.keys():
            if key not in wanted:
                floor.delete(key)

    # Services.
    def set_services(self, services: Iterable[Service]) -> int:
        """Put exactly these services in force; the number that changed."""
        wanted = {
            layout.SERVICE_KEY.pack(
                s.consumer, layout.pack_address(s.address), s.port, s.protocol
            ): s.backends
            for s in services
        }
        state = self._services
        changed = 0
        for key, backends in wanted.items():
            if state.get(key, (0, None))[1] != backends:
                self._swap_service(key, backends)
                changed += 1
        for key in [known for known in state if known not in wanted]:
            identifier, backends = state.pop(key)
            self._maps["services"].delete(key)
            self._drop_backends(identifier, len(backends))
            changed += 1
        return changed

    def _swap_service(self, key: bytes, backends: tuple[tuple[str, int], ...]) -> None:
        """Fresh backends first, then the one update that points to them."""
        self._next_service = (self._next_service + 1) % 2**32
        identifier = self._next_service
        for slot, (address, port) in enumerate(backends):
            value = layout.BACKEND.pack(layout.pack_address(address), port)
            self._maps["backends"].set(layout.BACKEND_KEY.pack(identifier, slot), value)
        self._maps["services"].set(key, layout.SERVICE.pack(identifier, len(backends)))
        old = self._services.get(key)
        self._services[key] = (identifier, backends)
        if old:
            self._drop_backends(old[0], len(old[1]))

    def _drop_backends(self, identifier: int, number: int) -> None:
        for slot in range(number):
            self._maps["backends"].delete(layout.BACKEND_KEY.pack(identifier, slot))

    @property
    def _services(self) -> dict[bytes, tuple[int, tuple]]:
        """Services in force: key → (id, backends); read once from the kernel, then kept."""
        if not hasattr(self, "_cached_services"):
            found: dict[bytes, tuple[int, tuple]] = {}
            used: set[int] = set()
            for key, value in self._maps["services"].items():
                identifier, number = layout.SERVICE.unpack(value)
                backends = []
                for slot in range(number):
                    raw = self._maps["backends"].get(layout.BACKEND_KEY.pack(identifier, slot))
                    if raw:
                        address, port = layout.BACKEND.unpack(raw)
                        backends.append((layout.unpack_address(address), port))
                found[key] = (identifier, tuple(backends))
                used.add(identifier)
            for key in self._maps["backends"].keys():
                if layout.BACKEND_KEY.unpack(key)[0] not in used:
                    self._maps["backends"].delete(key)
            self._next_service = max(used, default=0)
            self._cached_services = found
        return self._cached_services

    # What the programs saw.
    def drain_flows(self, mine: Callable[[int], bool] = lambda source: True) -> list[Flow]:
        """Take aggregated flows out of the kernel, of those sources that ``mine`` is true for."""
        flows = []
        for key in self._maps["edges"].keys():
            if not mine(layout.EDGE.unpack(key)[0]):
                continue
            value = self._maps["edges"].get(key)
            if value is None:
                continue
            self._maps["edges"].delete(key)
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
                    allowed=verdict == ALLOW,
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
        return {
            name: len(self._maps[name].keys()) / self._maps[name].max_entries
            for name in ("endpoints", "ipcache", "identities", "services")
        }


def _network(prefix: int, raw: bytes) -> str:
    """Text form of a network of ``pack_network``."""
    address = layout.unpack_address(raw) or "::"
    if ":" in address:
        return f"{address}/{prefix}"
    return f"{address}/{prefix - 96}"
