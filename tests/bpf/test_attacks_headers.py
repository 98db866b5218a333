"""Attacks as frames: other protocols, tunnels, options, extension headers, groups, wrong lengths."""

from __future__ import annotations

import struct

import pytest

from bpf.tables import ALLOW, External
from tests.bpf import packets as p
from tests.bpf.laboratory import TCP, UDP, Member
from tests.bpf.scene import Scene, scene  # noqa: F401  fixture
from tests.bpf.test_packets import DROP, PASS, run

pytestmark = pytest.mark.root


def test_every_other_protocol_is_refused(scene: Scene) -> None:
    """SCTP, DCCP, UDP-Lite, IGMP, tunnels of every kind, and numbers that nobody has given out."""
    a, b = scene.a, scene.b
    chained = {0, 43, 44, 60}
    wrong = {}
    for number in range(256):
        if number not in (1, 6, 17):
            answer = scene.sent(p.ETH_IP, p.ipv4(a.v4, b.v4, number, b"\0" * 40))
            if answer != (DROP, {"PROTOCOL"}):
                wrong[f"v4 {number}"] = answer
        if number not in {6, 17, 58} | chained:
            answer = scene.sent(p.ETH_IPV6, p.ipv6(a.v6, b.v6, number, b"\0" * 40))
            if answer != (DROP, {"PROTOCOL"}):
                wrong[f"v6 {number}"] = answer
    assert wrong == {}


def test_a_packet_inside_another_one_goes_nowhere(scene: Scene) -> None:
    a, b, c = scene.a, scene.b, scene.c
    inner4 = p.ipv4(a.v4, c.v4, TCP, p.tcp(4000, 8080))
    inner6 = p.ipv6(a.v6, c.v6, TCP, p.tcp(4000, 8080))
    embedded = int.from_bytes(bytes(map(int, c.v4.split("."))), "big")
    tail = f"{embedded >> 16:x}:{embedded & 0xFFFF:x}"
    cases = {
        "ipip": (p.ETH_IP, p.ipv4(a.v4, b.v4, 4, inner4), "PROTOCOL"),
        "6in4": (p.ETH_IP, p.ipv4(a.v4, b.v4, 41, inner6), "PROTOCOL"),
        "4in6": (p.ETH_IPV6, p.ipv6(a.v6, b.v6, 4, inner4), "PROTOCOL"),
        "6in6": (p.ETH_IPV6, p.ipv6(a.v6, b.v6, 41, inner6), "PROTOCOL"),
        "gre": (p.ETH_IP, p.ipv4(a.v4, b.v4, 47, b"\0\0\x08\0" + inner4), "PROTOCOL"),
        "esp": (p.ETH_IP, p.ipv4(a.v4, b.v4, 50, b"\0" * 32), "PROTOCOL"),
        "ah": (p.ETH_IPV6, p.ipv6(a.v6, b.v6, 51, b"\x06\x04" + b"\0" * 22 + p.tcp(1, 8080)), "PROTOCOL"),
        "vxlan": (
            p.ETH_IP,
            p.ipv4(a.v4, b.v4, UDP, p.udp(4000, 4789, b"\x08" + b"\0" * 7 + inner4)),
            "NO_RULE",
        ),
        "mapped": (p.ETH_IPV6, p.ipv6(a.v6, f"::ffff:{c.v4}", TCP, p.tcp(1, 8080)), "MALFORMED"),
        "compatible": (p.ETH_IPV6, p.ipv6(a.v6, f"::{tail}", TCP, p.tcp(1, 8080)), "EGRESS"),
        "nat64": (p.ETH_IPV6, p.ipv6(a.v6, f"64:ff9b::{tail}", TCP, p.tcp(1, 8080)), "EGRESS"),
        "6to4": (p.ETH_IPV6, p.ipv6(a.v6, f"2002:{tail}::1", TCP, p.tcp(1, 8080)), "EGRESS"),
        "isatap": (p.ETH_IPV6, p.ipv6(a.v6, f"fe80::5efe:{tail}", TCP, p.tcp(1, 8080)), "EGRESS"),
        "teredo": (p.ETH_IPV6, p.ipv6(a.v6, "2001::1", UDP, p.udp(1, 3544)), "EGRESS"),
    }
    assert scene.wrong(cases) == {}


def test_a_network_of_ipv6_opens_no_ipv4(scene: Scene) -> None:
    """Tables keep IPv4 as mapped addresses; what is declared for IPv6 mustn't mean those too."""
    for network in ("::/0", "::/64", "::ffff:0:0/96"):
        scene.laboratory.tables.apply_identity(300, 1, [], [External(network, 443, TCP, ALLOW, 5)])
        packet = p.ipv4(scene.a.v4, "203.0.113.5", TCP, p.tcp(4000, 443))
        assert scene.sent(p.ETH_IP, packet) == (DROP, {"EGRESS"}), network
        scene.laboratory.tables.purge_conntrack(scene.a.namespace.ifindex)
    scene.laboratory.tables.apply_identity(300, 1, [], [External("0.0.0.0/0", 443, TCP, ALLOW, 5)])
    assert scene.sent(p.ETH_IP, packet)[0] == PASS
    outside = p.ipv6(scene.a.v6, "2001:db8::5", TCP, p.tcp(4000, 443))
    assert scene.sent(p.ETH_IPV6, outside) == (DROP, {"EGRESS"})


def test_frames_of_anything_but_ip_are_refused(scene: Scene) -> None:
    packet = p.ipv4(scene.a.v4, scene.b.v4, TCP, p.tcp(4000, 8080))
    tagged = struct.pack("!HH", 5, p.ETH_IP) + packet
    cases = {
        "vlan": (0x8100, tagged, "NOT_IP"),
        "service vlan": (0x88A8, tagged, "NOT_IP"),
        "vlan in vlan": (0x88A8, struct.pack("!HH", 5, 0x8100) + tagged, "NOT_IP"),
        "llc": (60, b"\xaa\xaa\x03\0\0\0\x08\0" + packet, "NOT_IP"),
        "mpls": (0x8847, b"\0\0\x01\xff" + packet, "NOT_IP"),
        "pppoe": (0x8864, b"\x11\0\0\1\0\x2a\0\x21" + packet, "NOT_IP"),
        "rarp": (0x8035, b"\0" * 28, "NOT_IP"),
        "lldp": (0x88CC, b"\0" * 46, "NOT_IP"),
        "eapol": (0x888E, b"\0" * 46, "NOT_IP"),
        "macsec": (0x88E5, b"\0" * 46, "NOT_IP"),
        "token of loopback": (0x0060, packet, "NOT_IP"),
        "arp that asks": (p.ETH_ARP, _arp(1, scene.a, scene.b), "NEIGHBOUR"),
        "arp that answers for another": (p.ETH_ARP, _arp(2, scene.a, scene.b), "NEIGHBOUR"),
    }
    assert scene.wrong(cases) == {}


def _arp(operation: int, a: Member, b: Member) -> bytes:
    own, theirs = (bytes(map(int, m.v4.split("."))) for m in (a, b))
    return struct.pack("!HHBBH", 1, 0x0800, 6, 4, operation) + a.namespace.mac + theirs + b"\0" * 6 + own


def test_no_ip_option_passes(scene: Scene) -> None:
    """Source routes, recorded routes, timestamps, router alerts, and padding alone."""
    a, b = scene.a, scene.b
    there = bytes(map(int, b.v4.split(".")))
    options = {
        "loose source route": b"\x83\x07\x04" + there + b"\0",
        "strict source route": b"\x89\x07\x04" + there + b"\0",
        "recorded route": b"\x07\x07\x04\0\0\0\0\0",
        "timestamp": b"\x44\x08\x05\0\0\0\0\0",
        "router alert": b"\x94\x04\0\0",
        "security": b"\x86\x04\0\0",
        "padding": b"\x01\x01\x01\x00",
        "too many": b"\x01" * 40,
    }
    cases = {
        name: (p.ETH_IP, p.ipv4(a.v4, b.v4, TCP, p.tcp(4000, 8080), options=value), "IP_OPTIONS")
        for name, value in options.items()
    }
    whole = p.ipv4(a.v4, b.v4, TCP, p.tcp(4000, 8080))
    for length in range(5):
        cases[f"header of {length} words"] = (p.ETH_IP, bytes([0x40 | length]) + whole[1:], "IP_OPTIONS")
    for version in (0, 3, 5, 6, 15):
        cases[f"version {version}"] = (p.ETH_IP, bytes([version << 4 | 5]) + whole[1:], "MALFORMED")
    assert scene.wrong(cases) == {}


def test_extension_headers_hide_nothing(scene: Scene) -> None:
    a, b = scene.a, scene.b
    syn, allowed = p.tcp(4000, 22), p.tcp(4000, 8080)
    jumbo = p.extension(TCP, b"\xc2\x04\0\0\0\x28")
    home = p.extension(TCP, b"\x01\x04\0\0\0\0")
    routing = {
        kind: struct.pack("!BBBB", TCP, 2, kind, 1) + b"\0" * 4 + b"\x20" * 16 for kind in (0, 2, 3, 4, 253)
    }

    def six(following: int, payload: bytes) -> bytes:
        return p.ipv6(a.v6, b.v6, following, payload)

    cases = {
        **{f"routing {k}": (p.ETH_IPV6, six(43, h + allowed), "EXTENSION_HEADER") for k, h in routing.items()},
        "routing behind options": (p.ETH_IPV6, six(60, p.extension(43) + routing[0] + allowed), "EXTENSION_HEADER"),
        "jumbo": (p.ETH_IPV6, six(0, jumbo + syn), "NO_RULE"),
        "options in front of another port": (p.ETH_IPV6, six(60, home + syn), "NO_RULE"),
        "options that are very long": (p.ETH_IPV6, six(60, b"\x06\x20" + b"\0" * 262 + allowed), "EXTENSION_HEADER"),
        "options that end in the middle": (p.ETH_IPV6, six(60, b"\x06\x02" + b"\0" * 8), "MALFORMED"),
        "four in a chain": (
            p.ETH_IPV6,
            six(0, p.extension(60) * 1 + p.extension(60) + p.extension(60) + p.extension(TCP) + allowed),
            "EXTENSION_HEADER",
        ),
        "nothing follows": (p.ETH_IPV6, six(59, allowed), "PROTOCOL"),
        "mobility": (p.ETH_IPV6, six(135, b"\x3b\0\0\0" + b"\0" * 12), "PROTOCOL"),
        "host identity": (p.ETH_IPV6, six(139, b"\0" * 40), "PROTOCOL"),
        "experiments": (p.ETH_IPV6, six(253, b"\0" * 40), "PROTOCOL"),
        "icmp of the other family": (p.ETH_IPV6, six(1, b"\x08" + b"\0" * 15), "PROTOCOL"),
    }  # fmt: skip
    assert scene.wrong(cases) == {}


def test_short_lives_and_wrong_lengths_change_no_verdict(scene: Scene) -> None:
    a, b = scene.a, scene.b
    whole = p.ipv4(a.v4, b.v4, TCP, p.tcp(4000, 22))
    cases = {}
    for lives in (0, 1, 2, 255):
        cases[f"v4 {lives} hops"] = (p.ETH_IP, whole[:8] + bytes([lives]) + whole[9:], "NO_RULE")
    for length in (0, 20, 28, 65535):
        cases[f"v4 length {length}"] = (
            p.ETH_IP,
            whole[:2] + struct.pack("!H", length) + whole[4:],
            "NO_RULE",
        )
    six = p.ipv6(a.v6, b.v6, TCP, p.tcp(4000, 22))
    for length in (0, 8, 65535):
        cases[f"v6 length {length}"] = (p.ETH_IPV6, six[:4] + struct.pack("!H", length) + six[6:], "NO_RULE")
    cases["v6 flow label"] = (p.ETH_IPV6, b"\x6f\xff\xff\xff" + six[4:], "NO_RULE")
    cases["v6 of version 4"] = (p.ETH_IPV6, b"\x40" + six[1:], "MALFORMED")
    assert scene.wrong(cases) == {}


def test_groups_and_everybody_are_never_reached(scene: Scene) -> None:
    a, config = scene.a, scene.laboratory.config
    query = p.udp(5353, 5353)
    groups4 = ("224.0.0.1", "224.0.0.251", "232.1.1.1", "239.255.255.250", "255.255.255.255")
    groups6 = ("ff01::1", "ff02::1", "ff02::1:2", "ff05::2", "ff0e::101", "ff32::1")
    cases = {to: (p.ETH_IP, p.ipv4(a.v4, to, UDP, query), "MULTICAST") for to in groups4}
    cases |= {to: (p.ETH_IPV6, p.ipv6(a.v6, to, UDP, query), "MULTICAST") for to in groups6}
    everybody = str(config.workloads4.broadcast_address)
    cases["the range's broadcast"] = (p.ETH_IP, p.ipv4(a.v4, everybody, UDP, query), "UNKNOWN_DESTINATION")
    cases["dhcp"] = (p.ETH_IP, p.ipv4("0.0.0.0", "255.255.255.255", UDP, p.udp(68, 67)), "SPOOFED_SOURCE")
    cases["dhcp6"] = (p.ETH_IPV6, p.ipv6("fe80::42", "ff02::1:2", UDP, p.udp(546, 547)), "SPOOFED_SOURCE")
    cases["advertised router"] = (
        p.ETH_IPV6,
        p.ipv6("fe80::42", "ff02::1", 58, b"\x86" + b"\0" * 15),
        "NEIGHBOUR",
    )
    cases["igmp"] = (p.ETH_IP, p.ipv4(a.v4, "224.0.0.22", 2, b"\x22" + b"\0" * 15), "PROTOCOL")
    cases["mld"] = (
        p.ETH_IPV6,
        p.ipv6(a.v6, "ff02::16", 0, p.extension(58) + b"\x8f" + b"\0" * 23),
        "NEIGHBOUR",
    )
    wrong = {}
    for name, (kind, payload, reason) in cases.items():
        frame = p.ethernet(a.namespace.mac, a.namespace.host_mac, kind, payload)
        verdict = run(scene.laboratory, "from_workload", frame, a.namespace.ifindex)
        reasons = {flow.reason for flow in scene.laboratory.tables.drain_flows()}
        if verdict != DROP or reason not in reasons:
            wrong[name] = (verdict, reasons)
    assert wrong == {}
