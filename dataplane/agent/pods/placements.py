"""Where replicas are: what a node says of its own pods, and what it may be believed of others'."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

from infra.config import V4, V6

#: So many addresses aren't looked at again each time that anything moves.
_ADDRESSES = 1 << 14
REPLICA = re.compile(r"r[1-9][0-9]{0,18}", re.ASCII)


@dataclass(frozen=True)
class Placement:
    """A replica's pod. ``v4``/``v6``: its own addresses, "" for a family it has none of. ``since``: seconds
    of the epoch at which its node attested it: of two, as when a node is lost, the later one counts.
    ``serving``: unless it is ending, or was ready and isn't any more."""

    node: str
    uid: str
    namespace: str
    v4: str
    v6: str
    since: float = 0.0
    serving: bool = True

    @property
    def addresses(self) -> tuple[str, ...]:
        return tuple(text for text in (self.v4, self.v6) if text)

    def of(self, other: str) -> str:
        """Its address of the family that an address is of, or ""."""
        return self.v6 if ":" in other else self.v4


@dataclass(frozen=True)
class Said:
    """What one node says: its own addresses, and its pods by replica."""

    node: str
    addresses: tuple[str, ...]
    pods: Mapping[str, Placement]

    def document(self) -> dict[str, Any]:
        """The form in which it is published."""
        pods = {
            replica: {key: value for key, value in asdict(pod).items() if key != "node"}
            for replica, pod in sorted(self.pods.items())
        }
        return {"node": self.node, "addresses": list(self.addresses), "pods": pods}

    @classmethod
    def read(cls, document: Any) -> Said:
        """What a node published. Raises ``ValueError``, ``TypeError`` or ``LookupError``."""
        node = _text(document["node"])
        pods = {}
        for replica, pod in document["pods"].items():
            if not REPLICA.fullmatch(replica):
                raise ValueError(f"{replica!r} isn't a replica")
            v4, v6 = _address(pod["v4"], 4), _address(pod["v6"], 6)
            if not (v4 or v6):
                raise ValueError(f"{replica} has no address")
            pods[replica] = Placement(
                node,
                _text(pod["uid"]),
                _text(pod["namespace"]),
                v4,
                v6,
                _moment(pod.get("since", 0)),
                pod.get("serving", True) is True,
            )
        return cls(node, tuple(str(_plain(a)) for a in document["addresses"]), pods)


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value or len(value) > 253 or not value.isprintable():
        raise ValueError("a name isn't one")
    return value


def _address(value: Any, version: int) -> str:
    if value == "":
        return ""
    address = _plain(value)
    if address.version != version:
        raise ValueError(f"{address} isn't of IPv{version}")
    return str(address)


def _plain(value: Any) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """An address that is written in one way: with a zone, or as IPv4 in IPv6, it would be another's and look
    like nobody's."""
    address = ipaddress.ip_address(_text(value))
    if isinstance(address, ipaddress.IPv6Address) and (address.scope_id or address.ipv4_mapped):
        raise ValueError(f"{address} isn't a pod's or a node's")
    return address


def _moment(value: Any) -> float:
    if not isinstance(value, int | float) or not 0 <= value < 2**53:
        raise ValueError("a time isn't one")
    return float(value)


def believed(
    said: Iterable[Said],
    endpoints: Iterable[Mapping[str, Any]],
    pods: Sequence[V4 | V6],
    closed: Sequence[V4 | V6] = (),
    own: str = "",
) -> dict[str, Placement]:
    """Of all that nodes say, what desired state bears out: replica → its one placement.

    A replica is only in its cell's namespace; a pod's address is in the cluster's ranges (``pods``; none:
    anywhere) and neither a node's nor in the platform's own (``closed``). What the node ``own`` says of its
    pods it has seen itself, so nobody else has their addresses; of others, two replicas with one address are
    none: whoever says so can't be told from whom it wrongs.
    """
    places = {endpoint["id"]: endpoint.get("pod", {}).get("namespace") for endpoint in endpoints}
    everything, credible = list(said), _credible(tuple(pods), tuple(closed))
    nodes = {address for each in everything for address in each.addresses}
    found: dict[str, Placement] = {}
    for each in everything:
        for replica, pod in each.pods.items():
            if places.get(replica) != pod.namespace:
                continue
            if not all(address not in nodes and credible(address) for address in pod.addresses):
                continue
            known = found.get(replica)
            if known is None or (pod.since, pod.uid) > (known.since, known.uid):
                found[replica] = pod
    seen = {address for pod in found.values() if pod.node == own for address in pod.addresses}
    found = {
        replica: pod for replica, pod in found.items() if pod.node == own or not seen & set(pod.addresses)
    }
    claimed: dict[str, int] = {}
    for pod in found.values():
        for address in pod.addresses:
            claimed[address] = claimed.get(address, 0) + 1
    return {
        replica: pod
        for replica, pod in found.items()
        if all(claimed[address] == 1 for address in pod.addresses)
    }


@lru_cache(maxsize=4)
def _credible(pods: tuple[V4 | V6, ...], closed: tuple[V4 | V6, ...]) -> Callable[[str], bool]:
    """Whether an address may be a pod's, for each address."""

    @lru_cache(maxsize=_ADDRESSES)
    def credible(text: str) -> bool:
        address = ipaddress.ip_address(text)
        if address.is_loopback or address.is_link_local or address.is_multicast:
            return False
        if any(address in each for each in closed if each.version == address.version):
            return False
        ranges = [each for each in pods if each.version == address.version]
        return not ranges or any(address in each for each in ranges)

    return credible
