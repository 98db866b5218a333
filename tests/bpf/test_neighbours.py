"""ARP and neighbour discovery of pods whose interface a CNI made: about their own addresses, and no more."""

from __future__ import annotations

import ipaddress
import json
import os
import socket
import struct
import subprocess
from collections.abc import Iterator

import pytest

from bpf import loader
from bpf import sys as bpf
from bpf.tables import Tables
from dataplane.agent.namespaces import run_in
from infra.config import Config
from tests.bpf import packets as p
from tests.bpf.laboratory import Member
from tests.bpf.nodes import PODS4, PODS6, Node
from tests.bpf.test_packets import DROP, PASS

pytestmark = pytest.mark.root
OTHER_MAC = b"\x02\x00\x00\x00\x00\x66"
EVERYBODY = b"\xff" * 6
LINK_LOCAL = "fe80::1"


@pytest.fixture
def node(kernel: Config, tables: Tables) -> Iterator[Node]:
    made = Node(kernel, tables, "bridge")
    try:
        made.build()
        yield made
    finally:
        made.close()


def arp(operation: int, sender_mac: bytes, sender: str, target: str, target_mac: bytes = bytes(6)) -> bytes:
    addresses = [ipaddress.IPv4Address(text).packed for text in (sender, target)]
    head = struct.pack("!HHBBH", 1, 0x0800, 6, 4, operation)
    return head + sender_mac + addresses[0] + target_mac + addresses[1]


def discovery(
    kind: int, source: str, to: str, target: str, option: bytes = b"", hops: int = 255, chain: bool = False
) -> bytes:
    message = struct.pack("!BBHI", kind, 0, 0, 0) + ipaddress.IPv6Address(target).packed + option
    packet = p.ipv6(source, to, 0 if chain else 58, (p.extension(58) if chain else b"") + message)
    return packet[:7] + bytes([hops]) + packet[8:]


def own_option(kind: int, mac: bytes) -> bytes:
    return bytes([kind, 1]) + mac


def judged(
    node: Node, program: str, member: Member, frame: bytes, came_from: int = 0
) -> tuple[int, set[str]]:
    """The verdict on a frame and the reasons that were recorded for it."""
    node.tables.drain_flows()
    descriptor = bpf.object_get(loader.pins(node.config) / "programs" / program)
    try:
        context = struct.pack("=9III", *([0] * 9), came_from, member.namespace.ifindex)
        verdict = bpf.test_run(descriptor, frame, context)[0]
    finally:
        os.close(descriptor)
    direction = 0 if program == "from_workload" else 1
    # Kernels announce groups and look for routers whenever they like.
    seen = {
        f.reason
        for f in node.tables.drain_flows()
        if f.direction == direction and f.remote not in ("ff02::16", "ff02::2") and "ff:fe" not in f.remote
    }
    return verdict, seen


def test_a_pod_asks_and_answers_for_its_own_addresses_only(node: Node) -> None:
    a, b = node.pod("a", 400, 5), node.pod("b", 401, 6)
    mac, gateway4, gateway6 = a.namespace.mac, f"{PODS4}1", f"{PODS6}1"
    solicit, advertise = own_option(1, mac), own_option(2, mac)
    passing = {
        "question": (p.ETH_ARP, arp(1, mac, a.v4, gateway4), mac),
        "answer": (p.ETH_ARP, arp(2, mac, a.v4, gateway4, b"\x02" * 6), mac),
        "announcement": (p.ETH_ARP, arp(1, mac, a.v4, a.v4), mac),
        "solicitation": (p.ETH_IPV6, discovery(135, a.v6, "ff02::1:ff00:1", gateway6, solicit), mac),
        "probe": (p.ETH_IPV6, discovery(135, a.v6, gateway6, gateway6), mac),
        "advertisement": (p.ETH_IPV6, discovery(136, a.v6, LINK_LOCAL, a.v6, advertise), mac),
    }
    refused = {
        "another's address": (p.ETH_ARP, arp(1, mac, b.v4, gateway4), mac),
        "the gateway's address": (p.ETH_ARP, arp(2, mac, gateway4, b.v4), mac),
        "another's hardware address": (p.ETH_ARP, arp(1, OTHER_MAC, a.v4, gateway4), mac),
        "from another's": (p.ETH_ARP, arp(1, mac, a.v4, gateway4), OTHER_MAC),
        "looking for duplicates": (p.ETH_ARP, arp(1, mac, "0.0.0.0", a.v4), mac),
        "reverse": (p.ETH_ARP, arp(3, mac, a.v4, gateway4), mac),
        "short": (p.ETH_ARP, arp(1, mac, a.v4, gateway4)[:20], mac),
        "duplicates v6": (p.ETH_IPV6, discovery(135, "::", "ff02::1:ff00:5", a.v6), mac),
        "from another": (p.ETH_IPV6, discovery(135, b.v6, gateway6, gateway6, solicit), mac),
        "link-local": (p.ETH_IPV6, discovery(135, "fe80::5", gateway6, gateway6, solicit), mac),
        "another's in the option": (
            p.ETH_IPV6,
            discovery(135, a.v6, gateway6, gateway6, own_option(1, OTHER_MAC)),
            mac,
        ),
        "for another": (p.ETH_IPV6, discovery(136, a.v6, "ff02::1", b.v6, advertise), mac),
        "for the gateway": (p.ETH_IPV6, discovery(136, a.v6, "ff02::1", gateway6, advertise), mac),
        "another's in the answer": (
            p.ETH_IPV6,
            discovery(136, a.v6, "ff02::1", a.v6, own_option(2, OTHER_MAC)),
            mac,
        ),
        "several options": (p.ETH_IPV6, discovery(136, a.v6, "ff02::1", a.v6, advertise * 2), mac),
        "wrong option": (p.ETH_IPV6, discovery(136, a.v6, "ff02::1", a.v6, solicit), mac),
        "from afar": (p.ETH_IPV6, discovery(135, a.v6, gateway6, gateway6, solicit, hops=64), mac),
        "behind a header": (p.ETH_IPV6, discovery(135, a.v6, gateway6, gateway6, solicit, chain=True), mac),
        "router solicitation": (p.ETH_IPV6, discovery(133, a.v6, "ff02::1", gateway6), mac),
        "router advertisement": (p.ETH_IPV6, discovery(134, a.v6, "ff02::1", gateway6), mac),
        "redirect": (p.ETH_IPV6, discovery(137, a.v6, b.v6, gateway6), mac),
        "group report": (p.ETH_IPV6, discovery(143, a.v6, "ff02::1", gateway6), mac),
    }
    wrong = {}
    for cases, expected in ((passing, (PASS, set())), (refused, (DROP, {"NEIGHBOUR"}))):
        for name, (kind, payload, source) in cases.items():
            answer = judged(node, "from_workload", a, p.ethernet(source, EVERYBODY, kind, payload))
            if answer != expected:
                wrong[name] = answer
    assert wrong == {}


def test_a_pod_hears_the_node_and_its_siblings_and_nobody_else(node: Node) -> None:
    a, b = node.pod("a", 400, 5), node.pod("b", 401, 6)
    node.wire("x", 66)
    stranger = node.here.inside(lambda: socket.if_nametoindex("vethx"))
    by_b, gateway4, gateway6 = b.namespace.ifindex, f"{PODS4}1", f"{PODS6}1"
    mac, option = b.namespace.mac, own_option(1, b.namespace.mac)
    cases = {
        "the node asks": (0, p.ETH_ARP, arp(1, mac, gateway4, a.v4), PASS, set()),
        "the node answers": (0, p.ETH_ARP, arp(2, mac, gateway4, a.v4), PASS, set()),
        "the node solicits": (
            0,
            p.ETH_IPV6,
            discovery(135, LINK_LOCAL, "ff02::1:ff00:5", a.v6, option),
            PASS,
            set(),
        ),
        "the node advertises": (0, p.ETH_IPV6, discovery(136, gateway6, a.v6, gateway6), PASS, set()),
        "a sibling asks": (by_b, p.ETH_ARP, arp(1, mac, b.v4, a.v4), PASS, set()),
        "a sibling solicits": (by_b, p.ETH_IPV6, discovery(135, b.v6, a.v6, a.v6, option), PASS, set()),
        "a sibling advertises": (by_b, p.ETH_IPV6, discovery(136, b.v6, a.v6, b.v6), PASS, set()),
        "a stranger asks": (stranger, p.ETH_ARP, arp(1, mac, f"{PODS4}66", a.v4), DROP, {"NEIGHBOUR"}),
        "a stranger is the gateway": (stranger, p.ETH_ARP, arp(2, mac, gateway4, a.v4), DROP, {"NEIGHBOUR"}),
        "a stranger is the sibling": (stranger, p.ETH_ARP, arp(2, mac, b.v4, a.v4), DROP, {"NEIGHBOUR"}),
        "a stranger is the gateway v6": (
            stranger,
            p.ETH_IPV6,
            discovery(136, gateway6, a.v6, gateway6, own_option(2, OTHER_MAC)),
            DROP,
            {"NEIGHBOUR"},
        ),
        "a stranger solicits": (
            stranger,
            p.ETH_IPV6,
            discovery(135, LINK_LOCAL, a.v6, a.v6, option),
            DROP,
            {"NEIGHBOUR"},
        ),
        "a stranger has the address too": (
            stranger,
            p.ETH_IPV6,
            discovery(135, "::", "ff02::1:ff00:5", a.v6),
            DROP,
            {"NEIGHBOUR"},
        ),
        "a router's": (0, p.ETH_IPV6, discovery(134, LINK_LOCAL, "ff02::1", gateway6), DROP, {"NEIGHBOUR"}),
        "a redirect": (0, p.ETH_IPV6, discovery(137, LINK_LOCAL, a.v6, gateway6), DROP, {"NEIGHBOUR"}),
        # What a bridge tells everybody is nobody's attempt.
        "about another": (stranger, p.ETH_ARP, arp(1, mac, f"{PODS4}66", b.v4), DROP, set()),
        "about another v6": (
            stranger,
            p.ETH_IPV6,
            discovery(135, LINK_LOCAL, "ff02::1:ff00:6", b.v6),
            DROP,
            set(),
        ),
    }
    wrong = {}
    for name, (came_from, kind, payload, *expected) in cases.items():
        frame = p.ethernet(b.namespace.mac, EVERYBODY, kind, payload)
        answer = judged(node, "to_workload", a, frame, came_from)
        if answer != tuple(expected):
            wrong[name] = answer
    assert wrong == {}


def test_a_bridges_stranger_changes_no_pods_neighbours(node: Node) -> None:
    a = node.pod("a", 400, 5)
    stranger = node.wire("x", 66)
    node.open_everything(8080)
    # It knows its gateway by now.
    a.call(node.far.v4, 8080, 17, 0.1)
    before = _neighbour(a, f"{PODS4}1")
    assert before
    forged = arp(2, OTHER_MAC, f"{PODS4}1", a.v4, a.namespace.mac)

    def send() -> None:
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
            raw.bind(("eth0", 0))
            for to in (a.namespace.mac, EVERYBODY):
                raw.send(p.ethernet(OTHER_MAC, to, p.ETH_ARP, forged))

    node.refusals(housekeeping=True)
    run_in(stranger.path, send)
    assert _neighbour(a, f"{PODS4}1") == before
    assert "NEIGHBOUR" in node.refusals(housekeeping=True)


def _neighbour(member: Member, address: str) -> str:
    """Hardware address that the pod has for another; "" if it knows none."""
    command = ["nsenter", f"--net={member.namespace.path}", "ip", "-j", "neigh", "show", address]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return next((entry.get("lladdr", "") for entry in json.loads(done.stdout or "[]")), "")
