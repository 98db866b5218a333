"""A node with pods as a CNI makes them, and another node beyond an underlay.

The node is a namespace; its pods' interfaces are made by hand as the plugins ``ptp`` and ``bridge`` make
them, and taken over as the agent does. The other node is one without programs, which can say whatever it
likes.
"""

from __future__ import annotations

import contextlib
import socket
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from bpf.tables import ALLOW, EGRESS, INGRESS, Policy, Tables
from dataplane.agent import foreign, host, network
from dataplane.agent.namespaces import run_in, write_sysctls
from infra.config import Config
from tests.bpf.laboratory import ICMP, ICMPV6, TCP, UDP, Member
from tests.links import await_up

T = TypeVar("T")
_ROUTER = {
    "net/ipv4/ip_forward": "1",
    "net/ipv6/conf/all/forwarding": "1",
    "net/ipv6/conf/default/forwarding": "1",
    "net/ipv6/conf/default/accept_dad": "0",
    "net/ipv4/conf/all/rp_filter": "0",
    "net/ipv4/conf/default/rp_filter": "0",
    "net/ipv6/conf/all/disable_ipv6": "0",
}
#: Of the documentation's networks and a private one: pods here, pods there, the way between.
PODS4, PODS6 = "198.18.1.", "fd00:c1:1::"
FAR4, FAR6 = "198.18.2.", "fd00:c1:2::"
WAY4, WAY6 = "198.18.0.", "fd00:c1::"
FAR_IDENTITY, NODE_IDENTITY = 409, 1


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, (command, done.stderr)


@dataclass
class Place:
    """A namespace with addresses, which isn't known to the platform by itself."""

    name: str
    v4: str
    v6: str

    @property
    def path(self) -> Path:
        return Path("/run/netns") / self.name

    def inside(self, function: Callable[[], T]) -> T:
        return run_in(self.path, function)

    def ip(self, *lines: str) -> None:
        for line in lines:
            _run("ip", "-n", self.name, *line.split())


@dataclass
class Node:
    """``layout``: ``ptp`` or ``bridge``. Everything is made by ``build`` and gone after ``close``."""

    config: Config
    tables: Tables
    layout: str
    pods: dict[str, Member] = field(default_factory=dict)
    places: list[Place] = field(default_factory=list)
    own: list[str] = field(default_factory=list)

    def build(self) -> None:
        name = self.config.name
        self.here = self._place(f"{name}-here", f"{WAY4}1", f"{WAY6}1")
        self.far = self._place(f"{name}-far", f"{FAR4}5", f"{FAR6}5")
        self.here.ip(f"link add way type veth peer name way netns {self.far.name}")
        for place, number in ((self.here, 1), (self.far, 2)):
            place.ip(
                "link set way up",
                f"addr add {WAY4}{number}/24 dev way",
                f"addr add {WAY6}{number}/64 dev way",
            )
        for place in (self.here, self.far):
            await_up("way", place.name)
        self.far.ip(
            f"addr add {FAR4}5/32 dev lo",
            f"addr add {FAR6}5/128 dev lo",
            # Somebody there who isn't the platform's.
            f"addr add {FAR4}66/32 dev lo",
            f"addr add {FAR6}66/128 dev lo",
            f"route add {PODS4}0/24 via {WAY4}1",
            f"route add {PODS6}/64 via {WAY6}1",
        )
        self.here.ip(f"route add {FAR4}0/24 via {WAY4}2", f"route add {FAR6}/64 via {WAY6}2")
        if self.layout == "bridge":
            self.here.ip(
                "link add cni0 type bridge",
                "link set cni0 up",
                f"addr add {PODS4}1/24 dev cni0",
                f"addr add {PODS6}1/64 dev cni0",
            )
        self.here.inside(lambda: foreign.ensure_underlays(self.config, self.tables, ["way"]))
        self.tables.set_address(f"{FAR4}5", FAR_IDENTITY, 0)
        self.tables.set_address(f"{FAR6}5", FAR_IDENTITY, 0)
        self.tables.set_floor(
            [(f"{a}1/{32 if '.' in a else 128}", "NODE") for a in (WAY4, WAY6, PODS4, PODS6)]
        )

    def _place(self, name: str, v4: str, v6: str) -> Place:
        subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)
        _run("ip", "netns", "add", name)
        place = Place(name, v4, v6)
        self.places.append(place)
        write_sysctls(place.path, _ROUTER)
        place.ip("link set lo up")
        return place

    def wire(self, name: str, number: int) -> Place:
        """A pod's namespace with its interface, as the CNI leaves it."""
        v4, v6 = f"{PODS4}{number}", f"{PODS6}{number:x}"
        pod = self._place(f"{self.config.name}-pod-{name}", v4, v6)
        outside = f"veth{name}"
        self.here.ip(f"link add {outside} type veth peer name eth0 netns {pod.name}")
        ptp = self.layout == "ptp"
        pod.ip(
            "link set eth0 up",
            f"addr add {v4}/{32 if ptp else 24} dev eth0",
            f"addr add {v6}/{128 if ptp else 64} dev eth0 nodad",
        )
        if ptp:
            pod.ip(f"route add {PODS4}1 dev eth0 scope link", f"route add {PODS6}1 dev eth0")
            self.here.ip(f"addr add {PODS4}1/32 dev {outside}", f"addr add {PODS6}1/128 dev {outside} nodad")
        else:
            self.here.ip(f"link set {outside} master cni0")
        self.here.ip(f"link set {outside} up")
        await_up(outside, self.here.name)
        await_up("eth0", pod.name)
        if ptp:
            self.here.ip(f"route add {v4} dev {outside}", f"route add {v6} dev {outside}")
        pod.ip(f"route add default via {PODS4}1", f"route add default via {PODS6}1")
        return pod

    def pod(self, name: str, identity: int, number: int) -> Member:
        """A pod of the platform: wired and taken over."""
        place = self.wire(name, number)
        found = self.here.inside(lambda: foreign.find_foreign(name, place.path))
        own = [network.Address(place.v4, place.v6, identity)]
        self.here.inside(lambda: foreign.introduce_foreign(self.config, self.tables, found, own))
        service = (str(self.config.services4[number]), str(self.config.services6[number]))
        member = Member(name, identity, place.v4, place.v6, *service, found)
        self.pods[name] = member
        self.tables.apply_identity(identity, 1, [])
        return member

    def workload(self, name: str, identity: int, index: int) -> Member:
        """One of the platform's own namespaces on the node, like a gateway's."""
        config = self.config
        address = network.Address(str(config.workloads4[index]), str(config.workloads6[index]), identity)
        made = self.here.inside(lambda: network.connect(config, self.tables, name, index, [address]))
        member = Member(name, identity, address.v4, address.v6, "", "", made)
        self.pods[name] = member
        self.own.append(name)
        self.tables.apply_identity(identity, 1, [])
        return member

    def allow(self, *edges: tuple[int, int, int, int]) -> None:
        """Exactly these (identity, identity, port, protocol) pass."""
        identities = {member.identity for member in self.pods.values()}
        policy: dict[int, list[Policy]] = {identity: [] for identity in identities}
        for source, target, port, protocol in edges:
            policy.setdefault(source, []).append(Policy(target, port, protocol, EGRESS, ALLOW, 7))
            policy.setdefault(target, []).append(Policy(source, port, protocol, INGRESS, ALLOW, 7))
        for identity, entries in policy.items():
            self.tables.apply_identity(identity, 1, entries)

    def open_everything(self, port: int = 8080) -> None:
        """Every pair of pods, and the other node's, at one port."""
        everybody = {*(member.identity for member in self.pods.values()), FAR_IDENTITY}
        protocols = ((port, TCP), (port, UDP), (0, ICMP), (0, ICMPV6))
        self.allow(*((a, b, p, k) for a in everybody for b in everybody if a != b for p, k in protocols))

    def refusals(self, housekeeping: bool = False) -> set[str]:
        """Since the last time. Kernels announce groups and look for routers whenever they like, also before
        their interface is known."""
        found = {f.reason for f in self.tables.drain_flows() if not f.allowed}
        return found if housekeeping else found - {"NEIGHBOUR", "NOT_READY"}

    def close(self) -> None:
        for member in self.pods.values():
            for opened in member.sockets:
                opened.close()
            self.tables.remove_endpoint(member.namespace.ifindex, member.namespace.cookie)
            self.tables.remove_identity(member.identity)
        for name in self.own:
            with contextlib.suppress(FileNotFoundError):
                index = int(self.pods[name].namespace.ifname.partition("v")[2])
                self.here.inside(lambda n=name, i=index: network.destroy(self.config, n, i))  # type: ignore[misc]
        for address in (f"{FAR4}5", f"{FAR6}5"):
            self.tables.remove_address(address)
        self.tables.set_underlays([])
        self.tables.set_services([])
        self.tables.set_floor([])
        for place in self.places:
            subprocess.run(["ip", "netns", "del", place.name], capture_output=True, check=False)


def send_datagram(place: Path, source: str, target: str, port: int, source_port: int = 5000) -> None:
    """A datagram with any source address, made in a namespace and routed by its tables."""

    def send() -> None:
        family = socket.AF_INET6 if ":" in target else socket.AF_INET
        with socket.socket(family, socket.SOCK_DGRAM) as client:
            level, option = (socket.IPPROTO_IPV6, 75) if ":" in target else (socket.IPPROTO_IP, 19)
            client.setsockopt(level, option, 1)  # transparent: any address may be one's own
            client.bind((source, source_port))
            client.sendto(b"forged", (target, port))

    run_in(place, send)


@dataclass
class Ear:
    """A datagram socket that only listens."""

    path: Path
    port: int
    patience: float = 0.3

    def __enter__(self) -> Ear:
        def open_socket() -> socket.socket:
            made = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            made.bind(("::", self.port))
            made.settimeout(self.patience)
            return made

        self._socket = run_in(self.path, open_socket)
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def heard(self) -> list[str]:
        """Senders of what has arrived by now."""
        found = []
        with contextlib.suppress(TimeoutError):
            while True:
                found.append(self._socket.recvfrom(70000)[1][0].removeprefix("::ffff:"))
        return found


def node_rules(config: Config, pods: list[str]) -> None:
    """What the agent of a Kubernetes node puts into nftables. In the current namespace."""
    subprocess.run(["nft", "-f", "-"], input=host.rules(config), text=True, check=True)
    host.set_platform(config, pods)
