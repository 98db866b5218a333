"""Attacks as frames: fragments, ICMP and TCP that pretend to belong to a flow."""

from __future__ import annotations

import struct

import pytest

from tests.bpf import packets as p
from tests.bpf.laboratory import TCP, UDP
from tests.bpf.scene import Scene, scene  # noqa: F401  fixture
from tests.bpf.test_packets import DROP, PASS, run, sent

pytestmark = pytest.mark.root
ACK, SYN, RST, FIN, PSH, URG = 0x10, 0x02, 0x04, 0x01, 0x08, 0x20


def test_fragments_obey_the_first_one_of_their_own_packet(scene: Scene) -> None:
    a, b, c = scene.a, scene.b, scene.c
    first = p.ipv4(a.v4, b.v4, UDP, p.udp(4000, 5353, b"x" * 64), fragment=0x2000, ident=50)
    assert scene.sent(p.ETH_IP, first)[0] == PASS
    cases = {
        "with the id, to somebody else": (p.ETH_IP, p.ipv4(a.v4, c.v4, UDP, b"y" * 16, fragment=9, ident=50), "FRAGMENT"),
        "with the id, of another protocol": (p.ETH_IP, p.ipv4(a.v4, b.v4, TCP, b"y" * 16, fragment=9, ident=50), "FRAGMENT"),
        "of another packet": (p.ETH_IP, p.ipv4(a.v4, b.v4, UDP, b"y" * 16, fragment=9, ident=51), "FRAGMENT"),
        "a second first one, to another port": (p.ETH_IP, p.ipv4(a.v4, b.v4, UDP, p.udp(4000, 22, b"x" * 64), fragment=0x2000, ident=50), "NO_RULE"),
        "later without first": (p.ETH_IP, p.ipv4(a.v4, b.v4, UDP, b"y" * 16, fragment=0x2009, ident=52), "FRAGMENT"),
        "tiny": (p.ETH_IP, p.ipv4(a.v4, b.v4, TCP, p.tcp(4000, 8080)[:8], fragment=0x2000, ident=53), "MALFORMED"),
        "of a protocol that is refused": (p.ETH_IP, p.ipv4(a.v4, b.v4, 132, b"\0" * 24, fragment=9, ident=50), "FRAGMENT"),
        "of echo that isn't declared": (p.ETH_IP, p.ipv4(a.v4, b.v4, 1, b"\x08" + b"\0" * 31, fragment=0x2000, ident=54), "NO_RULE"),
        "forged": (p.ETH_IP, p.ipv4(c.v4, b.v4, UDP, b"y" * 16, fragment=9, ident=50), "SPOOFED_SOURCE"),
        "for a service": (p.ETH_IP, p.ipv4(a.v4, b.service4, UDP, b"y" * 16, fragment=9, ident=50), "SERVICE_ON_WIRE"),
    }  # fmt: skip
    assert scene.wrong(cases) == {}
    # Another workload's id is not one's own: each has its memory.
    scene.laboratory.allow(("a", "b", 5353, UDP), ("c", "b", 8080, TCP))
    later = p.ipv4(c.v4, b.v4, UDP, b"y" * 16, fragment=9, ident=50)
    assert sent(scene.laboratory, c, p.ETH_IP, later) == (DROP, {"FRAGMENT"})


def test_a_fragment_that_would_write_over_tcps_flags_is_refused(scene: Scene) -> None:
    """RFC 3128: the first one passes as a part of a flow, the second makes an opening of it."""
    a, b = scene.a, scene.b
    first = p.ipv4(a.v4, b.v4, TCP, p.tcp(4000, 8080) + b"\0" * 4, fragment=0x2000, ident=60)
    assert scene.sent(p.ETH_IP, first)[0] == PASS
    over = p.ipv4(a.v4, b.v4, TCP, p.tcp(4000, 8080)[8:], fragment=1, ident=60)
    assert scene.sent(p.ETH_IP, over) == (DROP, {"FRAGMENT"})
    header6 = p.fragment6(TCP, 0, more=True, ident=60)
    assert scene.sent(p.ETH_IPV6, p.ipv6(a.v6, b.v6, 44, header6 + p.tcp(4000, 8080) + b"\0" * 4))[0] == PASS
    header6 = p.fragment6(TCP, 8, more=False, ident=60)
    over = p.ipv6(a.v6, b.v6, 44, header6 + p.tcp(4000, 8080)[8:])
    assert scene.sent(p.ETH_IPV6, over) == (DROP, {"FRAGMENT"})


def test_fragments_of_ipv6_obey_too(scene: Scene) -> None:
    a, b, c = scene.a, scene.b, scene.c

    def six(to: str, payload: bytes, following: int = 44) -> bytes:
        return p.ipv6(a.v6, to, following, payload)

    atomic = p.fragment6(TCP, 0, more=False, ident=70)
    assert scene.sent(p.ETH_IPV6, six(b.v6, atomic + p.tcp(4000, 8080)))[0] == PASS
    first = p.fragment6(UDP, 0, more=True, ident=71)
    assert scene.sent(p.ETH_IPV6, six(b.v6, first + p.udp(4000, 5353, b"x" * 64)))[0] == PASS
    later = p.fragment6(UDP, 72, more=False, ident=71)
    assert scene.sent(p.ETH_IPV6, six(b.v6, later + b"y" * 16))[0] == PASS
    cases = {
        "atomic, to another port": (p.ETH_IPV6, six(b.v6, atomic + p.tcp(4000, 22)), "NO_RULE"),
        "with the id, to somebody else": (p.ETH_IPV6, six(c.v6, later + b"y" * 16), "FRAGMENT"),
        "later without first": (p.ETH_IPV6, six(b.v6, p.fragment6(UDP, 72, False, 79) + b"y" * 16), "FRAGMENT"),
        "with the id, of another protocol": (p.ETH_IPV6, six(b.v6, p.fragment6(TCP, 72, False, 71) + b"y" * 16), "FRAGMENT"),
        "tiny": (p.ETH_IPV6, six(b.v6, p.fragment6(TCP, 0, True, 72) + p.tcp(1, 8080)[:8]), "MALFORMED"),
        "all options, no header": (p.ETH_IPV6, six(b.v6, p.fragment6(60, 0, True, 73) + p.extension(TCP)), "EXTENSION_HEADER"),
        "in a fragment": (p.ETH_IPV6, six(b.v6, p.fragment6(44, 0, True, 74) + p.fragment6(TCP, 0, True, 75) + p.tcp(1, 8080)), "EXTENSION_HEADER"),
        "a route behind it": (p.ETH_IPV6, six(b.v6, p.fragment6(43, 0, True, 76) + p.extension(TCP) + p.tcp(1, 8080)), "EXTENSION_HEADER"),
    }  # fmt: skip
    assert scene.wrong(cases) == {}


def test_of_icmp_only_echo_and_errors_are_known(scene: Scene) -> None:
    a, b = scene.a, scene.b
    discovery = {*range(130, 138), 143}
    cases = {}
    for kind in range(256):
        body = bytes([kind]) + b"\0" * 15
        if kind not in (3, 8, 11, 12):
            cases[f"v4 {kind}"] = (p.ETH_IP, p.ipv4(a.v4, b.v4, 1, body), "ICMP")
        if kind in discovery:
            cases[f"v6 {kind}"] = (p.ETH_IPV6, p.ipv6(a.v6, b.v6, 58, body), "NEIGHBOUR")
        elif kind != 128:
            cases[f"v6 {kind}"] = (p.ETH_IPV6, p.ipv6(a.v6, b.v6, 58, body), "ICMP")
    cases["echo"] = (p.ETH_IP, p.ipv4(a.v4, b.v4, 1, b"\x08" + b"\0" * 15), "NO_RULE")
    cases["echo6"] = (p.ETH_IPV6, p.ipv6(a.v6, b.v6, 58, b"\x80" + b"\0" * 15), "NO_RULE")
    assert scene.wrong(cases) == {}


def test_errors_about_flows_of_others_are_refused(scene: Scene) -> None:
    a, b, c = scene.a, scene.b, scene.c
    laboratory = scene.laboratory
    laboratory.allow(("a", "b", 8080, TCP), ("c", "b", 8080, TCP))
    for member in (a, c):
        frame = p.ipv4(member.v4, b.v4, TCP, p.tcp(4000, 8080))
        assert sent(laboratory, member, p.ETH_IP, frame)[0] == PASS
        arrived = p.ethernet(b.namespace.host_mac, b.namespace.mac, p.ETH_IP, frame)
        assert run(laboratory, "to_workload", arrived, b.namespace.ifindex, member.namespace.ifindex) == PASS
    foreign = p.ipv4(c.v4, b.v4, TCP, p.tcp(4000, 8080))
    guessed = p.ipv4(b.v4, a.v4, TCP, p.tcp(8080, 4001))
    for code in (0, 1, 3, 4, 9, 13):
        too_big = struct.pack("!BBHHH", 3, code, 0, 0, 68)
        cases = {
            "to its victim": (p.ETH_IP, p.ipv4(a.v4, c.v4, 1, too_big + foreign), "ICMP"),
            "to the other end": (p.ETH_IP, p.ipv4(a.v4, b.v4, 1, too_big + foreign), "ICMP"),
            "about a flow that it guesses": (p.ETH_IP, p.ipv4(a.v4, b.v4, 1, too_big + guessed), "ICMP"),
            "about itself to itself": (p.ETH_IP, p.ipv4(a.v4, b.v4, 1, too_big + p.ipv4(a.v4, b.v4, TCP, p.tcp(4000, 8080))), "ICMP"),
            "about nothing": (p.ETH_IP, p.ipv4(a.v4, b.v4, 1, too_big), "ICMP"),
            "about an echo": (p.ETH_IP, p.ipv4(a.v4, b.v4, 1, too_big + p.ipv4(b.v4, a.v4, 1, b"\0" * 8)), "ICMP"),
            "as another": (p.ETH_IP, p.ipv4(b.v4, c.v4, 1, too_big + foreign), "SPOOFED_SOURCE"),
        }  # fmt: skip
        assert scene.wrong(cases) == {}, code


def test_an_answer_to_echo_carries_no_question_back(scene: Scene) -> None:
    """Who may be pinged may answer, and may not ping."""
    laboratory, a, b = scene.laboratory, scene.a, scene.b
    laboratory.allow(("b", "a", 0, 1), ("b", "a", 0, 58))
    for kind, number, source, target, question, answer in (
        (p.ETH_IP, 1, a.v4, b.v4, 8, 0),
        (p.ETH_IPV6, 58, a.v6, b.v6, 128, 129),
    ):
        make = p.ipv4 if number == 1 else p.ipv6

        def echo(which: int) -> bytes:
            return struct.pack("!BBHHH", which, 0, 0, 77, 1)

        asked = p.ethernet(
            a.namespace.host_mac, a.namespace.mac, kind, make(target, source, number, echo(question))
        )
        assert run(laboratory, "to_workload", asked, a.namespace.ifindex, b.namespace.ifindex) == PASS
        laboratory.denials()
        assert scene.sent(kind, make(source, target, number, echo(answer)))[0] == PASS
        assert scene.sent(kind, make(source, target, number, echo(question))) == (DROP, {"NO_RULE"})


def test_odd_segments_are_judged_like_any_other(scene: Scene) -> None:
    a, b = scene.a, scene.b
    flags = {
        "syn+ack": SYN | ACK, "ack": ACK, "rst": RST, "rst+ack": RST | ACK, "fin": FIN, "null": 0,
        "christmas": FIN | PSH | URG, "syn+fin": SYN | FIN, "syn+rst": SYN | RST, "all": 0xFF,
    }  # fmt: skip
    cases = {}
    for name, value in flags.items():
        for port in (22, 0, 65535):
            cases[f"{name} to {port}"] = (
                p.ETH_IP,
                p.ipv4(a.v4, b.v4, TCP, p.tcp(4000, port, value)),
                "NO_RULE",
            )
    cases["data on syn"] = (p.ETH_IP, p.ipv4(a.v4, b.v4, TCP, p.tcp(4000, 22) + b"GET /"), "NO_RULE")
    cases["from port 0"] = (p.ETH_IP, p.ipv4(a.v4, b.v4, TCP, p.tcp(0, 22)), "NO_RULE")
    cases["udp to port 0"] = (p.ETH_IP, p.ipv4(a.v4, b.v4, UDP, p.udp(4000, 0)), "NO_RULE")
    cases["the other protocol's port"] = (p.ETH_IP, p.ipv4(a.v4, b.v4, UDP, p.udp(4000, 8080)), "NO_RULE")
    assert scene.wrong(cases) == {}


def test_who_is_called_opens_nothing_of_its_own(scene: Scene) -> None:
    """From the port that it serves, towards its caller: an answer passes, an opening in no disguise does."""
    laboratory, a, b = scene.laboratory, scene.a, scene.b
    laboratory.allow(("b", "a", 8080, TCP))
    openings = {"syn": SYN, "syn+fin": SYN | FIN, "syn+urg": SYN | URG | PSH, "syn+rst": SYN | RST}

    def frames() -> dict[str, tuple[int, bytes, str]]:
        return {
            name: (p.ETH_IP, p.ipv4(a.v4, b.v4, TCP, p.tcp(8080, 4000, value)), "NO_RULE")
            for name, value in openings.items()
        }

    assert scene.wrong(frames()) == {}
    opened = p.ethernet(
        a.namespace.host_mac, a.namespace.mac, p.ETH_IP, p.ipv4(b.v4, a.v4, TCP, p.tcp(4000, 8080))
    )
    assert run(laboratory, "to_workload", opened, a.namespace.ifindex, b.namespace.ifindex) == PASS
    laboratory.denials()
    answer = p.ipv4(a.v4, b.v4, TCP, p.tcp(8080, 4000, SYN | ACK))
    assert scene.sent(p.ETH_IP, answer)[0] == PASS
    # At the same time, as if both had opened.
    again = frames()
    del again["syn+rst"]  # an end of the flow that there is
    assert scene.wrong(again) == {}
