"""Attacks as frames: being somebody else, being early, being too much, being nothing that is known.

Whatever could leave a workload if neither seccomp nor capabilities were in its way; the programs get each
frame as the veth would give it to them, and drop it for exactly the reason that stands beside it.
"""

from __future__ import annotations

import random

import pytest

from bpf.tables import ALLOW, EGRESS, Policy
from tests.bpf import packets as p
from tests.bpf.independent import understood
from tests.bpf.laboratory import TCP, UDP
from tests.bpf.scene import Scene, scene  # noqa: F401  fixture
from tests.bpf.test_packets import DROP, PASS, run, sent

pytestmark = pytest.mark.root
ACK = 0x10


def test_nobody_elses_address_is_ones_own(scene: Scene) -> None:
    a, b, syn = scene.a, scene.b, p.tcp(4000, 8080)
    claimed4 = {
        "another replica of the same component": scene.twin.v4,
        "another workload": scene.c.v4,
        "the callee": b.v4,
        "its own service": a.service4,
        "the gateway": str(scene.laboratory.config.workloads4[2]),
        "its next hop": "169.254.1.1",
        "nobody": "0.0.0.0",
        "the node's loopback": "127.0.0.1",
        "everybody": "255.255.255.255",
        "a group": "224.0.0.1",
        "reserved": "240.0.0.1",
    }
    claimed6 = {
        "another replica of the same component": scene.twin.v6,
        "another workload": scene.c.v6,
        "link-local": "fe80::42",
        "its next hop": "fe80::1",
        "nobody": "::",
        "loopback": "::1",
        "a group": "ff02::1",
        "the world": "2001:db8::1",
        "6to4 of its own": "2002:0a40:0400::1",
    }
    cases = {f"v4 {n}": (p.ETH_IP, p.ipv4(s, b.v4, TCP, syn), "SPOOFED_SOURCE") for n, s in claimed4.items()}
    cases |= {
        f"v6 {n}": (p.ETH_IPV6, p.ipv6(s, b.v6, TCP, syn), "SPOOFED_SOURCE") for n, s in claimed6.items()
    }
    cases["v6 own v4, mapped"] = (p.ETH_IPV6, p.ipv6(f"::ffff:{a.v4}", b.v6, TCP, syn), "MALFORMED")
    assert scene.wrong(cases) == {}


def test_nobody_elses_hardware_address_is_ones_own(scene: Scene) -> None:
    packet = p.ipv4(scene.a.v4, scene.b.v4, TCP, p.tcp(4000, 8080))
    others = [
        scene.twin.namespace.mac,
        scene.a.namespace.host_mac,
        b"\0" * 6,
        b"\xff" * 6,
        b"\x01\0\x5e\0\0\1",
    ]
    for mac in others:
        assert scene.sent(p.ETH_IP, packet, source=mac) == (DROP, {"BAD_MAC"})
    for mac in (scene.b.namespace.mac, scene.b.namespace.host_mac, b"\xff" * 6, b"\x33\x33\0\0\0\1"):
        assert scene.sent(p.ETH_IP, packet, to=mac) == (DROP, {"BAD_MAC"})


def test_nothing_passes_before_a_workload_is_known(scene: Scene) -> None:
    """The start of a container can't be raced: an interface without identity or policy is shut."""
    laboratory, a, b = scene.laboratory, scene.a, scene.b
    frame = p.ipv4(a.v4, b.v4, TCP, p.tcp(4000, 8080))
    arriving = p.ethernet(b.namespace.host_mac, b.namespace.mac, p.ETH_IP, frame)
    laboratory.tables.remove_identity(300)
    assert scene.sent(p.ETH_IP, frame) == (DROP, {"NOT_READY"})
    laboratory.tables.apply_identity(300, 1, [Policy(301, 8080, TCP, EGRESS, ALLOW, 1)])
    assert scene.sent(p.ETH_IP, frame)[0] == PASS
    laboratory.tables.remove_identity(301)
    assert run(laboratory, "to_workload", arriving, b.namespace.ifindex, a.namespace.ifindex) == DROP
    laboratory.tables.remove_endpoint(a.namespace.ifindex, a.namespace.cookie)
    assert scene.sent(p.ETH_IP, frame) == (DROP, {"NOT_READY"})


def test_whoever_gets_a_dead_ones_address_gets_none_of_its_flows(scene: Scene) -> None:
    laboratory, a, b, c = scene.laboratory, scene.a, scene.b, scene.c
    for packet in (p.ipv4(a.v4, b.v4, TCP, p.tcp(4000, 8080)), p.ipv4(a.v4, b.v4, UDP, p.udp(4000, 5353))):
        assert scene.sent(p.ETH_IP, packet)[0] == PASS
        arrived = p.ethernet(b.namespace.host_mac, b.namespace.mac, p.ETH_IP, packet)
        assert run(laboratory, "to_workload", arrived, b.namespace.ifindex, a.namespace.ifindex) == PASS
    laboratory.tables.remove_endpoint(b.namespace.ifindex, b.namespace.cookie)
    assert laboratory.tables.flows_of(b.namespace.ifindex) == []
    # What b's own namespace still says meanwhile, to groups, is refused as nobody's.
    late = p.ipv4(a.v4, b.v4, TCP, p.tcp(4000, 8080, ACK))
    verdict, reasons = scene.sent(p.ETH_IP, late)
    assert (verdict, reasons - {"NOT_READY"}) == (DROP, {"UNKNOWN_DESTINATION"})
    # The address is given to c, whom a may not call.
    laboratory.tables.set_address(b.v4, c.identity, c.namespace.ifindex)
    laboratory.denials()
    for packet in (late, p.ipv4(a.v4, b.v4, UDP, p.udp(4000, 5353))):
        verdict, reasons = scene.sent(p.ETH_IP, packet)
        assert (verdict, reasons - {"NOT_READY"}) == (DROP, {"REVOKED"})
    answer = p.ipv4(b.v4, a.v4, UDP, p.udp(5353, 4000))
    assert sent(laboratory, c, p.ETH_IP, answer) == (DROP, {"NO_RULE"})


def test_a_flood_of_flows_costs_the_one_who_makes_it(scene: Scene) -> None:
    """A full table of one's own forgets one's own; another's answers still come."""
    laboratory, a, b, c = scene.laboratory, scene.a, scene.b, scene.c
    laboratory.allow(("a", "b", 5353, UDP), ("c", "twin", 5353, UDP))
    asked = p.ipv4(c.v4, scene.twin.v4, UDP, p.udp(4000, 5353))
    assert sent(laboratory, c, p.ETH_IP, asked)[0] == PASS
    for port in range(1024, 1024 + 9000):
        frame = p.ethernet(
            a.namespace.mac, a.namespace.host_mac, p.ETH_IP, p.ipv4(a.v4, b.v4, UDP, p.udp(port, 5353))
        )
        assert run(laboratory, "from_workload", frame, a.namespace.ifindex) == PASS
    assert len(laboratory.tables.flows_of(a.namespace.ifindex)) < 9000
    answer = p.ipv4(scene.twin.v4, c.v4, UDP, p.udp(5353, 4000))
    arriving = p.ethernet(c.namespace.host_mac, c.namespace.mac, p.ETH_IP, answer)
    assert run(laboratory, "to_workload", arriving, c.namespace.ifindex, scene.twin.namespace.ifindex) == PASS


def test_a_flood_of_refusals_keeps_other_rows(scene: Scene) -> None:
    """Ports and addresses of one scanner's don't push out what others' rows say."""
    laboratory, a, b, c = scene.laboratory, scene.a, scene.b, scene.c
    assert sent(laboratory, c, p.ETH_IP, p.ipv4(c.v4, b.v4, TCP, p.tcp(4000, 22)))[0] == DROP
    refused = p.ipv4(c.v4, b.v4, TCP, p.tcp(4000, 23))
    frame = p.ethernet(c.namespace.mac, c.namespace.host_mac, p.ETH_IP, refused)
    assert run(laboratory, "from_workload", frame, c.namespace.ifindex) == DROP
    for port in range(1, 12000):
        packet = p.ipv4(a.v4, b.v4, TCP, p.tcp(4000, port + 10000))
        scan = p.ethernet(a.namespace.mac, a.namespace.host_mac, p.ETH_IP, packet)
        assert run(laboratory, "from_workload", scan, a.namespace.ifindex) == DROP
    flows = laboratory.tables.drain_flows()
    assert ("NO_RULE", 23) in {(flow.reason, flow.port) for flow in flows if flow.source == c.identity}
    scanned = [flow for flow in flows if flow.source == a.identity and flow.reason == "NO_RULE"]
    assert sum(flow.packets for flow in scanned) == 11999, "none is uncounted"
    assert "edges full" not in laboratory.tables.counters()


@pytest.mark.parametrize("seed", [1, 2])
def test_whatever_passes_is_what_an_independent_reader_takes_it_for(scene: Scene, seed: int) -> None:
    """Random frames, most of them near the ones that may pass: none of another kind gets through."""
    dice, a, b = random.Random(seed), scene.a, scene.b
    allowed = {(TCP, 8080), (UDP, 5353)}
    seeds = [
        (p.ETH_IP, p.ipv4(a.v4, b.v4, TCP, p.tcp(4000, 8080) + b"\0" * 12)),
        (p.ETH_IP, p.ipv4(a.v4, b.v4, UDP, p.udp(4000, 5353))),
        (p.ETH_IP, p.ipv4(a.v4, b.v4, 1, b"\x08" + b"\0" * 40)),
        (p.ETH_IPV6, p.ipv6(a.v6, b.v6, TCP, p.tcp(4000, 8080) + b"\0" * 12)),
        (p.ETH_IPV6, p.ipv6(a.v6, b.v6, 60, p.extension(UDP) + p.udp(4000, 5353))),
        (p.ETH_IPV6, p.ipv6(a.v6, b.v6, 44, p.fragment6(TCP, 0, False) + p.tcp(4000, 8080))),
        (p.ETH_IPV6, p.ipv6(a.v6, b.v6, 0, p.extension(60) + p.extension(TCP) + p.tcp(4000, 8080))),
    ]
    passed = 0
    for _ in range(4000):
        kind, payload = dice.choice(seeds)
        changed = bytearray(payload)
        for _ in range(dice.choice((0, 1, 1, 2, 4))):
            changed[dice.randrange(len(changed))] = dice.choice(
                (0, 1, 6, 17, 43, 44, 60, 255, dice.randrange(256))
            )
        if dice.random() < 0.1 and len(changed) > 41:
            del changed[dice.randrange(41, len(changed)) :]  # no shorter one is given to programs
        kind = dice.choice((kind, kind, kind, 0x8100, p.ETH_IP, p.ETH_IPV6))
        changed += bytes(max(0, 40 - len(changed)))
        frame = p.ethernet(a.namespace.mac, a.namespace.host_mac, kind, bytes(changed))
        if run(scene.laboratory, "from_workload", frame, a.namespace.ifindex) == PASS:
            passed += 1
            seen = understood(frame)
            assert seen is not None, frame.hex()
            assert seen.source in (a.v4, a.v6) and seen.destination in (b.v4, b.v6), frame.hex()
            assert seen.is_later_fragment or (seen.protocol, seen.port) in allowed, frame.hex()
    assert passed > 300
