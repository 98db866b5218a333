"""Each reason for which tc drops a packet, in each direction, and each form that may pass, by built packets."""

from __future__ import annotations

import pytest

from bpf.reasons import REASONS
from tests.bpf import packets as p
from tests.bpf.laboratory import ICMP, ICMPV6, TCP, UDP, Laboratory, Member
from tests.bpf.reason_cases import CASES, Pair, echo, error, ip, received
from tests.bpf.test_packets import DROP, PASS, sent

pytestmark = pytest.mark.root

#: Given by the socket hooks, the resolver or the edge, never by tc.
ELSEWHERE = {
    "OK",
    "NO_BACKEND",
    "NO_SERVICE",
    "NAME",
    "NAME_FLOOR",
    "NAME_QUOTA",
    "QUOTA",
    "EDGE_DENIED",
    "EDGE_RATE",
}
#: Only what leaves a workload can have them.
ONLY_EGRESS = {
    "BAD_MAC", "MULTICAST", "UNKNOWN_DESTINATION", "SERVICE_ON_WIRE", "FLOOR", "NODE", "EGRESS",
}  # fmt: skip
ONLY_INGRESS = {"NOT_LOCAL"}


@pytest.fixture
def pair(laboratory: Laboratory) -> Pair:
    a, b = laboratory.workload("a", 300, 1024), laboratory.workload("b", 301, 1025)
    b.listen(TCP, 8080)
    allow(laboratory)
    laboratory.denials()
    return laboratory, a, b


def allow(laboratory: Laboratory) -> None:
    declared = ((8080, TCP), (5353, UDP), (0, ICMP), (0, ICMPV6))
    laboratory.allow(*(("a", "b", port, protocol) for port, protocol in declared))


def crossing(pair: Pair, kind: int, payload: bytes, back: bool = False) -> list[int]:
    """The verdicts of both programs on a packet from a to b, or back."""
    laboratory, a, b = pair
    source, to = (b, a) if back else (a, b)
    out = sent(laboratory, source, kind, payload)[0]
    return [out, received(laboratory, to, kind, payload, source.namespace.ifindex)[0]]


@pytest.mark.parametrize("family", [4, 6])
def test_each_form_that_is_allowed_passes_both_ends(pair: Pair, family: int) -> None:
    _, a, b = pair
    icmp = ICMP if family == 4 else ICMPV6
    query = ip(a, b, family, UDP, p.udp(4000, 5353))
    passing = {
        "tcp": [(*ip(a, b, family, TCP, p.tcp(4000, 8080)), False)],
        "tcp answer": [(*ip(b, a, family, TCP, p.tcp(8080, 4000, 0x12)), True)],
        "udp": [(*query, False)],
        "udp answer": [(*ip(b, a, family, UDP, p.udp(5353, 4000)), True)],
        "error about a flow": [(*ip(b, a, family, icmp, error(family, query[1])), True)],
        "echo": [(*ip(a, b, family, icmp, echo(family)), False)],
        "echo answer": [(*ip(b, a, family, icmp, echo(family, reply=True)), True)],
    }
    if family == 4:
        first = p.ipv4(a.v4, b.v4, UDP, p.udp(4000, 5353, b"x" * 64), fragment=0x2000, ident=9)
        passing["fragments"] = [
            (p.ETH_IP, first, False),
            (p.ETH_IP, p.ipv4(a.v4, b.v4, UDP, b"y" * 16, fragment=9, ident=9), False),
        ]
    else:
        first = p.ipv6(a.v6, b.v6, 44, p.fragment6(UDP, 0, True) + p.udp(4000, 5353, b"x" * 64))
        passing["fragments"] = [
            (p.ETH_IPV6, first, False),
            (p.ETH_IPV6, p.ipv6(a.v6, b.v6, 44, p.fragment6(UDP, 72, False) + b"y" * 16), False),
        ]
        chain = p.extension(60) + p.extension(TCP) + p.tcp(4001, 8080)
        passing["extension headers"] = [(p.ETH_IPV6, p.ipv6(a.v6, b.v6, 0, chain), False)]
    wrong = {}
    for name, frames in passing.items():
        verdicts = [crossing(pair, kind, payload, back) for kind, payload, back in frames]
        if any(verdict != PASS for both in verdicts for verdict in both):
            wrong[name] = verdicts
    assert wrong == {}


def test_every_reason_of_tc_has_a_case_in_each_direction_that_can_give_it() -> None:
    every = {reason.code for reason in REASONS.values()} - ELSEWHERE
    assert {reason for direction, reason, _ in CASES if direction == "out"} == every - ONLY_INGRESS
    assert {reason for direction, reason, _ in CASES if direction == "in"} == every - ONLY_EGRESS


def test_each_packet_that_may_not_pass_is_dropped_for_its_reason(pair: Pair) -> None:
    laboratory, a, b = pair
    wrong = {}
    for (direction, reason, name), case in CASES.items():
        for member in (a, b):
            _forget(laboratory, member)
        allow(laboratory)
        laboratory.tables.drain_flows()
        answer = case(pair)
        # Workloads' own packets are counted meanwhile, and pass.
        if (answer[0], answer[1] - {"OK"}) != (DROP, {reason}):
            wrong[direction, reason, name] = answer
    assert wrong == {}


def _forget(laboratory: Laboratory, member: Member) -> None:
    """As if the workload were new: no limits, no floor; removed, with its flows, and known again."""
    tables, namespace = laboratory.tables, member.namespace
    while member.name == "a" and member.sockets:
        member.sockets.pop().close()
    tables.set_limits({})
    tables.set_floor([])
    tables.remove_endpoint(namespace.ifindex, namespace.cookie)
    tables.set_endpoint(
        namespace.ifindex, member.identity, namespace.mac, namespace.host_mac, namespace.cookie
    )
    tables.set_address(member.v4, member.identity, namespace.ifindex)
    tables.set_address(member.v6, member.identity, namespace.ifindex)
