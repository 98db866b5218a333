"""Attacks on what is remembered: errors about a flow as a way to others, and flows that outlive what allowed them."""

from __future__ import annotations

import struct

import pytest

from bpf import layout
from bpf import sys as bpf
from bpf.tables import ALLOW, EGRESS, External, Policy, Tables
from tests.bpf import packets as p
from tests.bpf.laboratory import TCP, UDP, Member
from tests.bpf.scene import Scene, scene  # noqa: F401  fixture
from tests.bpf.test_packets import DROP, PASS, run

pytestmark = pytest.mark.root
ACK = 0x10
UNREACHABLE, UNREACHABLE6 = struct.pack("!BBHHH", 3, 3, 0, 0, 0), struct.pack("!BBHHH", 1, 4, 0, 0, 0)
STRANGER, STRANGER6, METADATA = "203.0.113.9", "2001:db8::9", "169.254.169.254"


def arrives(scene: Scene, at: Member, source: Member, packet: bytes) -> int:
    frame = p.ethernet(at.namespace.host_mac, at.namespace.mac, p.ETH_IP, packet)
    return run(scene.laboratory, "to_workload", frame, at.namespace.ifindex, source.namespace.ifindex)


def test_an_error_goes_to_the_other_end_of_its_flow_alone(scene: Scene) -> None:
    """A flow that is allowed is no pretext to send errors, and what they carry, to anybody else."""
    a, b, c = scene.a, scene.b, scene.c
    scene.laboratory.tables.set_floor([("169.254.0.0/16", "FLOOR"), (f"{STRANGER}/32", "NODE")])
    assert scene.sent(p.ETH_IP, p.ipv4(a.v4, b.v4, UDP, p.udp(4000, 5353)))[0] == PASS
    assert scene.sent(p.ETH_IPV6, p.ipv6(a.v6, b.v6, UDP, p.udp(4000, 5353)))[0] == PASS
    about = UNREACHABLE + p.ipv4(b.v4, a.v4, UDP, p.udp(5353, 4000))
    about6 = UNREACHABLE6 + p.ipv6(b.v6, a.v6, UDP, p.udp(5353, 4000))
    cases = {f"to {to}": (p.ETH_IP, p.ipv4(a.v4, to, 1, about), "ICMP") for to in (c.v4, STRANGER, METADATA)}
    for to in (c.v6, STRANGER6):
        cases[f"to {to}"] = (p.ETH_IPV6, p.ipv6(a.v6, to, 58, about6), "ICMP")
    assert scene.wrong(cases) == {}
    assert scene.sent(p.ETH_IP, p.ipv4(a.v4, b.v4, 1, about))[0] == PASS
    assert scene.sent(p.ETH_IPV6, p.ipv6(a.v6, b.v6, 58, about6))[0] == PASS


def test_errors_end_with_what_allowed_their_flow(scene: Scene) -> None:
    laboratory, a, b = scene.laboratory, scene.a, scene.b
    question = p.ipv4(a.v4, b.v4, UDP, p.udp(4000, 5353))
    assert scene.sent(p.ETH_IP, question)[0] == PASS
    assert arrives(scene, b, a, question) == PASS
    error = p.ipv4(a.v4, b.v4, 1, UNREACHABLE + p.ipv4(b.v4, a.v4, UDP, p.udp(5353, 4000)))
    assert scene.sent(p.ETH_IP, error)[0] == PASS
    assert arrives(scene, b, a, error) == PASS
    laboratory.allow(("a", "b", 8080, TCP))
    laboratory.denials()
    assert scene.sent(p.ETH_IP, error) == (DROP, {"ICMP"})
    assert arrives(scene, b, a, error) == DROP


def test_an_identity_that_comes_back_has_none_of_its_earlier_flows(scene: Scene) -> None:
    tables, a, b = scene.laboratory.tables, scene.a, scene.b
    outside = [External(f"{STRANGER}/32", 443, TCP, ALLOW, 7)]
    late = p.ipv4(a.v4, STRANGER, TCP, p.tcp(4000, 443, ACK))
    tables.remove_identity(a.identity)
    tables.apply_identity(a.identity, 1, [Policy(b.identity, 8080, TCP, EGRESS, ALLOW, 1)], outside)
    assert scene.sent(p.ETH_IP, late)[0] == PASS
    tables.remove_identity(a.identity)
    tables.apply_identity(a.identity, 1, [Policy(b.identity, 8080, TCP, EGRESS, ALLOW, 1)])
    assert scene.sent(p.ETH_IP, late) == (DROP, {"REVOKED"})


def test_an_address_that_is_another_ones_now_has_none_of_the_flows_it_had(scene: Scene) -> None:
    """The gateway's addresses, one for each cell, are all behind one interface."""
    tables, a, b, c = scene.laboratory.tables, scene.a, scene.b, scene.c
    for member, port in ((a, 8080), (c, 22)):
        tables.apply_identity(member.identity, 1, [Policy(b.identity, port, TCP, EGRESS, ALLOW, 1)])
    late = p.ipv4(a.v4, b.v4, TCP, p.tcp(4000, 8080, ACK))
    assert scene.sent(p.ETH_IP, late)[0] == PASS
    of_a = tables._maps["identities"].get(layout.U32.pack(a.identity))
    assert of_a is not None
    tables.set_address(a.v4, c.identity, a.namespace.ifindex)
    # As it happens, both have had as many changes.
    epoch = layout.IDENTITY.unpack(of_a)[0]
    entry = layout.POLICY_KEY.pack(c.identity, epoch, b.identity, 22, TCP, EGRESS)
    tables._maps["policy"].set(entry, layout.RULE.pack(1, ALLOW))
    tables._maps["identities"].set(layout.U32.pack(c.identity), of_a)
    try:
        assert scene.sent(p.ETH_IP, late) == (DROP, {"REVOKED"})
    finally:
        tables._maps["policy"].delete(entry)


def test_frames_that_nobody_could_send_share_a_row_too(scene: Scene) -> None:
    """Forged sources and what can't be read, from inside and from outside: nobody fills the table of flows."""
    laboratory, a, b = scene.laboratory, scene.a, scene.b
    ifindex, options = a.namespace.ifindex, b"\x83\x07\x04\x0a\0\0\1\0"
    for number in range(3000):
        one = f"198.18.{number >> 8}.{number & 255}"
        odd = p.ipv4(one, one, TCP, p.tcp(4000, 8080), options=options)
        frame = p.ethernet(a.namespace.mac, a.namespace.host_mac, p.ETH_IP, odd)
        assert run(laboratory, "from_workload", frame, ifindex) == DROP
        frame = p.ethernet(b.namespace.host_mac, b.namespace.mac, p.ETH_IP, odd)
        assert run(laboratory, "to_workload", frame, b.namespace.ifindex, ifindex) == DROP
    flows = [flow for flow in laboratory.tables.drain_flows() if flow.reason == "IP_OPTIONS"]
    assert sum(flow.packets for flow in flows) == 6000
    assert {(f.source, f.destination) for f in flows} == {(a.identity, 0), (0, b.identity)}
    assert len(flows) < 4200, "each had its rows and then one"
    # Before its rules are known nothing bounds an identity's rows: it has none of its own.
    laboratory.tables.remove_identity(a.identity)
    for number in range(100):
        odd = p.ipv4(f"198.18.0.{number}", STRANGER, TCP, p.tcp(4000, 8080))
        frame = p.ethernet(a.namespace.mac, a.namespace.host_mac, p.ETH_IP, odd)
        assert run(laboratory, "from_workload", frame, ifindex) == DROP
    flows = [flow for flow in laboratory.tables.drain_flows() if flow.reason == "SPOOFED_SOURCE"]
    assert [(flow.source, flow.packets) for flow in flows] == [(a.identity, 100)]


def test_who_opens_the_tables_beside_the_agent_writes_nothing(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it read before a change of the agent's it can't write after it: no flow is taken for looked at."""
    written: list[str] = []
    monkeypatch.setattr(bpf.Map, "set", lambda self, key, value: written.append(self.name))
    Tables(scene.laboratory.config).close()
    assert written == []
