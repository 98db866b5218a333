"""Every reason for which a packet is dropped, by running the loaded programs on built packets."""

from __future__ import annotations

import os
import struct

import pytest

from bpf import loader
from bpf import sys as bpf
from bpf.tables import ALLOW, EGRESS, INGRESS, External, Policy
from tests.bpf import packets as p
from tests.bpf.laboratory import TCP, UDP, Laboratory, Member

pytestmark = pytest.mark.root
PASS, DROP = 0, 2


@pytest.fixture
def pair(laboratory: Laboratory) -> tuple[Laboratory, Member, Member]:
    a, b = laboratory.workload("a", 300, 1024), laboratory.workload("b", 301, 1025)
    laboratory.allow(("a", "b", 8080, TCP), ("a", "b", 5353, UDP))
    laboratory.denials()
    return laboratory, a, b


def run(laboratory: Laboratory, program: str, packet: bytes, ifindex: int, came_from: int = 0) -> int:
    descriptor = bpf.object_get(loader.pins(laboratory.config) / "programs" / program)
    try:
        context = struct.pack("=9III", *([0] * 9), came_from, ifindex)
        return bpf.test_run(descriptor, packet, context)[0]
    finally:
        os.close(descriptor)


def sent(
    laboratory: Laboratory, member: Member, kind: int, payload: bytes, **changes: bytes
) -> tuple[int, set[str]]:
    """A frame from the workload: the verdict and the reasons that were recorded."""
    frame = p.ethernet(
        changes.get("source", member.namespace.mac),
        changes.get("to", member.namespace.host_mac),
        kind,
        payload,
    )
    laboratory.tables.drain_flows()
    verdict = run(laboratory, "from_workload", frame, member.namespace.ifindex)
    flows = laboratory.tables.drain_flows()
    # The namespace's own kernel announces its multicast groups (ff02::16) and looks for neighbours whenever it
    # likes, and namespaces of earlier tests, which are nobody's by now, may still take leave: that hides nothing
    # that is told of somebody.
    told = {(f.source, f.reason) for f in flows if f.direction == EGRESS and f.remote != "ff02::16"}
    known = {reason for source, reason in told if reason != "NEIGHBOUR" and (source or reason != "NOT_READY")}
    return verdict, known or {reason for _, reason in told}


def test_a_declared_syn_passes_and_is_counted(pair) -> None:
    laboratory, a, b = pair
    verdict, reasons = sent(laboratory, a, p.ETH_IP, p.ipv4(a.v4, b.v4, TCP, p.tcp(4000, 8080)))
    assert (verdict, reasons) == (PASS, {"OK"})
    verdict, reasons = sent(laboratory, a, p.ETH_IPV6, p.ipv6(a.v6, b.v6, UDP, p.udp(4000, 5353)))
    assert (verdict, reasons) == (PASS, {"OK"})


def test_each_malformed_or_forbidden_packet_has_its_reason(pair) -> None:
    laboratory, a, b = pair
    syn, query = p.tcp(4000, 8080), p.udp(4000, 5353)
    gateway = a.namespace.host_mac
    cases = {
        "arp": (p.ETH_ARP, b"\0" * 28, "NEIGHBOUR", {}),
        "other ethertype": (0x88CC, b"\0" * 30, "NOT_IP", {}),
        "options": (
            p.ETH_IP,
            p.ipv4(a.v4, b.v4, TCP, syn, options=b"\x83\x07\x04\x0a\0\0\1\0"),
            "IP_OPTIONS",
            {},
        ),
        "sctp": (p.ETH_IP, p.ipv4(a.v4, b.v4, 132, b"\0" * 20), "PROTOCOL", {}),
        "gre": (p.ETH_IPV6, p.ipv6(a.v6, b.v6, 47, b"\0" * 20), "PROTOCOL", {}),
        "short": (p.ETH_IP, p.ipv4(a.v4, b.v4, TCP, b"\0" * 8), "MALFORMED", {}),
        "neighbour solicitation": (p.ETH_IPV6, p.ipv6(a.v6, b.v6, 58, b"\x87" + b"\0" * 23), "NEIGHBOUR", {}),
        "router advertisement": (p.ETH_IPV6, p.ipv6(a.v6, b.v6, 58, b"\x86" + b"\0" * 15), "NEIGHBOUR", {}),
        "redirect": (p.ETH_IP, p.ipv4(a.v4, b.v4, 1, b"\x05" + b"\0" * 15), "ICMP", {}),
        "forged source": (p.ETH_IP, p.ipv4(b.v4, b.v4, TCP, syn), "SPOOFED_SOURCE", {}),
        "forged source v6": (p.ETH_IPV6, p.ipv6(b.v6, b.v6, TCP, syn), "SPOOFED_SOURCE", {}),
        "loopback source": (p.ETH_IP, p.ipv4("127.0.0.1", b.v4, TCP, syn), "SPOOFED_SOURCE", {}),
        "outside source": (p.ETH_IP, p.ipv4("203.0.113.5", b.v4, TCP, syn), "SPOOFED_SOURCE", {}),
        "mapped": (p.ETH_IPV6, p.ipv6(a.v6, f"::ffff:{b.v4}", TCP, syn), "MALFORMED", {}),
        "foreign source mac": (p.ETH_IP, p.ipv4(a.v4, b.v4, TCP, syn), "BAD_MAC", {"source": b"\x02" * 6}),
        "foreign target mac": (p.ETH_IP, p.ipv4(a.v4, b.v4, TCP, syn), "BAD_MAC", {"to": b.namespace.mac}),
        "multicast": (p.ETH_IP, p.ipv4(a.v4, "224.0.0.251", UDP, query), "MULTICAST", {}),
        "broadcast": (p.ETH_IP, p.ipv4(a.v4, "255.255.255.255", UDP, query), "MULTICAST", {}),
        "multicast v6": (p.ETH_IPV6, p.ipv6(a.v6, "ff02::fb", UDP, query), "MULTICAST", {}),
        "loopback": (p.ETH_IP, p.ipv4(a.v4, "127.0.0.1", TCP, syn), "FLOOR", {}),
        "service address": (p.ETH_IP, p.ipv4(a.v4, b.service4, TCP, syn), "SERVICE_ON_WIRE", {}),
        "service address v6": (p.ETH_IPV6, p.ipv6(a.v6, b.service6, TCP, syn), "SERVICE_ON_WIRE", {}),
        "nobody's address": (
            p.ETH_IP,
            p.ipv4(a.v4, str(laboratory.config.workloads4[9999]), TCP, syn),
            "UNKNOWN_DESTINATION",
            {},
        ),
        "other port": (p.ETH_IP, p.ipv4(a.v4, b.v4, TCP, p.tcp(4000, 22)), "NO_RULE", {}),
        "outside": (p.ETH_IP, p.ipv4(a.v4, "203.0.113.5", TCP, syn), "EGRESS", {}),
        "routing header": (
            p.ETH_IPV6,
            p.ipv6(a.v6, b.v6, 43, p.extension(TCP) + syn),
            "EXTENSION_HEADER",
            {},
        ),
        "long chain": (
            p.ETH_IPV6,
            p.ipv6(
                a.v6, b.v6, 60, p.extension(60) + p.extension(60) + p.extension(60) + p.extension(TCP) + syn
            ),
            "EXTENSION_HEADER",
            {},
        ),
        "echo reply out of nowhere": (p.ETH_IP, p.ipv4(a.v4, b.v4, 1, b"\0" * 16), "ICMP", {}),
        "later fragment out of nowhere": (
            p.ETH_IP,
            p.ipv4(a.v4, b.v4, TCP, b"x" * 32, fragment=3),
            "FRAGMENT",
            {},
        ),
        "header split over fragments": (
            p.ETH_IP,
            p.ipv4(a.v4, b.v4, TCP, syn[:8], fragment=0x2000),
            "MALFORMED",
            {},
        ),
        "udp reply nobody asked for": (p.ETH_IP, p.ipv4(a.v4, b.v4, UDP, p.udp(5353, 4000)), "NO_RULE", {}),
    }
    assert gateway
    wrong = {}
    for name, (kind, payload, reason, changes) in cases.items():
        verdict, reasons = sent(laboratory, a, kind, payload, **changes)
        if verdict != DROP or reasons != {reason}:
            wrong[name] = (verdict, reasons)
    assert wrong == {}


def test_extension_headers_are_walked_to_the_transport(pair) -> None:
    laboratory, a, b = pair
    chain = p.extension(60) + p.extension(TCP)
    verdict, _ = sent(laboratory, a, p.ETH_IPV6, p.ipv6(a.v6, b.v6, 0, chain + p.tcp(4000, 8080)))
    assert verdict == PASS
    verdict, reasons = sent(laboratory, a, p.ETH_IPV6, p.ipv6(a.v6, b.v6, 0, chain + p.tcp(4000, 22)))
    assert (verdict, reasons) == (DROP, {"NO_RULE"})


def test_later_fragments_obey_the_first(pair) -> None:
    laboratory, a, b = pair
    first = p.ipv4(a.v4, b.v4, UDP, p.udp(4000, 5353, b"x" * 64), fragment=0x2000, ident=99)
    assert sent(laboratory, a, p.ETH_IP, first)[0] == PASS
    later = p.ipv4(a.v4, b.v4, UDP, b"y" * 16, fragment=9, ident=99)
    assert sent(laboratory, a, p.ETH_IP, later)[0] == PASS
    refused = p.ipv4(a.v4, b.v4, UDP, p.udp(4000, 22, b"x" * 64), fragment=0x2000, ident=100)
    assert sent(laboratory, a, p.ETH_IP, refused) == (DROP, {"NO_RULE"})
    later = p.ipv4(a.v4, b.v4, UDP, b"y" * 16, fragment=9, ident=100)
    assert sent(laboratory, a, p.ETH_IP, later) == (DROP, {"FRAGMENT"})


def test_a_platform_source_counts_only_from_its_own_interface(pair) -> None:
    laboratory, a, b = pair
    frame = p.ethernet(
        b.namespace.host_mac, b.namespace.mac, p.ETH_IP, p.ipv4(a.v4, b.v4, TCP, p.tcp(4000, 8080))
    )
    target = b.namespace.ifindex
    assert run(laboratory, "to_workload", frame, target, a.namespace.ifindex) == PASS
    for elsewhere in (0, 1, target):
        assert run(laboratory, "to_workload", frame, target, elsewhere) == DROP
        assert "SPOOFED_SOURCE" in {f.reason for f in laboratory.tables.drain_flows()}


def test_the_world_and_the_node_are_different_peers(pair) -> None:
    laboratory, _, b = pair
    laboratory.tables.set_floor([("192.0.2.10/32", "NODE")])
    laboratory.tables.apply_identity(301, 1, [Policy(1, 8080, TCP, INGRESS, ALLOW, 1)])
    target = b.namespace.ifindex

    def arrive(source: str, came_from: int) -> int:
        packet = p.ipv4(source, b.v4, TCP, p.tcp(4000, 8080))
        frame = p.ethernet(b.namespace.host_mac, b.namespace.mac, p.ETH_IP, packet)
        return run(laboratory, "to_workload", frame, target, came_from)

    assert arrive("192.0.2.10", 0) == PASS
    assert arrive("192.0.2.10", 2) == DROP
    assert arrive("203.0.113.9", 2) == DROP


def test_an_interface_that_nobody_introduced_passes_nothing(pair) -> None:
    laboratory, a, b = pair
    laboratory.tables.remove_endpoint(a.namespace.ifindex)
    verdict, reasons = sent(laboratory, a, p.ETH_IP, p.ipv4(a.v4, b.v4, TCP, p.tcp(4000, 8080)))
    assert (verdict, reasons) == (DROP, {"NOT_READY"})


def test_external_egress_is_per_consumer(pair) -> None:
    laboratory, a, b = pair
    laboratory.tables.apply_identity(300, 1, [], [External("203.0.113.0/24", 443, TCP, ALLOW, 5)])
    packet = p.ipv4(a.v4, "203.0.113.5", TCP, p.tcp(4000, 443))
    assert sent(laboratory, a, p.ETH_IP, packet)[0] == PASS
    packet = p.ipv4(b.v4, "203.0.113.5", TCP, p.tcp(4000, 443))
    assert sent(laboratory, b, p.ETH_IP, packet) == (DROP, {"EGRESS"})
