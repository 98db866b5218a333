"""Verdicts beyond allowed and denied: audited, by a learned address, above the floor; flows by endpoint."""

from __future__ import annotations

import errno
import socket
import subprocess
from collections.abc import Iterator

import pytest

from bpf import layout
from bpf.tables import ALLOW, AUDIT, DENY, EGRESS, INGRESS, External, Policy, Tables
from dataplane.agent.namespaces import run_in
from tests.bpf.laboratory import TCP, UDP, Laboratory
from tests.links import await_up

pytestmark = pytest.mark.root
#: Of the documentation's networks: nobody else's.
OUTSIDE = "198.51.100.20"


@pytest.fixture
def two(laboratory: Laboratory) -> Laboratory:
    for number, name in enumerate("ab"):
        member = laboratory.workload(name, 360 + number, 1080 + number)
        member.listen(TCP, 8080)
        member.listen(UDP, 8080)
    return laboratory


@pytest.fixture
def outside(two: Laboratory) -> Iterator[str]:
    """An address beyond the platform that answers, in a namespace of its own."""
    name = f"{two.config.name}-outside"
    near, far = f"{two.config.name}out0", f"{two.config.name}out1"
    commands = [
        f"ip netns add {name}",
        f"ip link add {near} type veth peer name {far}",
        f"ip link set {far} netns {name}",
        f"ip address add 198.51.100.1/24 dev {near}",
        f"ip link set {near} up",
        f"ip -n {name} address add {OUTSIDE}/24 dev {far}",
        f"ip -n {name} link set {far} up",
        f"ip -n {name} route add default via 198.51.100.1",
    ]
    try:
        for command in commands:
            subprocess.run(command.split(), check=True)
        await_up(near)
        await_up(far, name)
        server = run_in(two.members["a"].namespace.path.with_name(name), _listener)
        yield OUTSIDE
        server.close()
    finally:
        subprocess.run(["ip", "link", "delete", near], check=False, capture_output=True)
        subprocess.run(["ip", "netns", "delete", name], check=False, capture_output=True)


def _listener() -> socket.socket:
    server = socket.create_server((OUTSIDE, 443))
    server.listen(16)
    return server


def reaches(laboratory: Laboratory, address: str, port: int = 443) -> bool:
    def attempt() -> bool:
        try:
            with socket.create_connection((address, port), timeout=0.5):
                return True
        except OSError:
            return False

    return run_in(laboratory.members["a"].namespace.path, attempt)


def audited(laboratory: Laboratory) -> set[tuple[str, int]]:
    return {
        (flow.reason, flow.rule)
        for flow in laboratory.tables.drain_flows()
        if flow.allowed and flow.reason != "OK"
    }


@pytest.mark.parametrize("protocol", [TCP, UDP])
def test_an_audited_call_passes_and_is_reported_with_the_reason_to_refuse_it(
    two: Laboratory, protocol: int
) -> None:
    a, b = two.members["a"], two.members["b"]
    two.tables.apply_identity(a.identity, 1, [Policy(b.identity, 0, protocol, EGRESS, AUDIT, 71)])
    two.tables.apply_identity(b.identity, 1, [Policy(a.identity, 0, protocol, INGRESS, AUDIT, 71)])
    two.tables.drain_flows()
    assert a.call(b.v4, 8080, protocol) == "b"
    assert audited(two) == {("NO_RULE", 71)}
    assert not [flow for flow in two.tables.drain_flows() if not flow.allowed and flow.reason != "NEIGHBOUR"]


def test_declared_beats_audited_and_denied_beats_both(two: Laboratory) -> None:
    a, b = two.members["a"], two.members["b"]
    entries = [
        Policy(b.identity, 0, TCP, EGRESS, AUDIT, 71),
        Policy(b.identity, 8080, TCP, EGRESS, ALLOW, 72),
    ]
    two.tables.apply_identity(a.identity, 1, entries)
    two.tables.apply_identity(b.identity, 1, [Policy(a.identity, 8080, TCP, INGRESS, ALLOW, 72)])
    two.tables.drain_flows()
    assert a.call(b.v4, 8080) == "b"
    assert audited(two) == set()
    two.tables.apply_identity(a.identity, 1, [*entries, Policy(0, 8080, TCP, EGRESS, DENY, 73)])
    assert a.call(b.v4, 8080) == ""


def test_audit_of_the_outside_never_opens_the_floor(two: Laboratory, outside: str) -> None:
    a = two.members["a"]
    two.tables.apply_identity(a.identity, 1, [], [External("0.0.0.0/0", 0, TCP, AUDIT, 71)])
    two.tables.drain_flows()
    assert reaches(two, outside)
    assert audited(two) == {("EGRESS", 71)}
    two.tables.set_floor([("198.51.100.0/24", "FLOOR")])
    two.tables.drain_flows()
    assert not reaches(two, outside)
    assert ("FLOOR", 443) in two.denials()
    assert audited(two) == set()


def test_a_learned_address_is_open_for_its_consumer_and_port_until_it_is_forgotten(
    two: Laboratory, outside: str
) -> None:
    a, b = two.members["a"], two.members["b"]
    two.tables.learn(b.identity, outside, 443, TCP, 81)
    assert not reaches(two, outside), "another consumer's permission"
    two.tables.learn(a.identity, outside, 444, TCP, 81)
    assert not reaches(two, outside), "another port's permission"
    two.tables.learn(a.identity, outside, 443, TCP, 82)
    assert (a.identity, outside, 443, TCP) in two.tables.learned()
    connection = run_in(a.namespace.path, lambda: socket.create_connection((outside, 443), timeout=1))
    two.tables.drain_flows()
    two.tables.forget_learned(a.identity, outside, 443, TCP)
    connection.sendall(b"more")
    assert ("REVOKED", 443) in two.denials(0.1)
    connection.close()
    assert not reaches(two, outside)


def test_a_learned_address_in_the_floor_stays_closed(two: Laboratory, outside: str) -> None:
    two.tables.set_floor([(f"{outside}/32", "NODE")])
    two.tables.learn(two.members["a"].identity, outside, 443, TCP, 82)
    assert not reaches(two, outside)
    assert ("NODE", 443) in two.denials()


def test_who_stands_above_the_floor_reaches_only_what_it_was_given(two: Laboratory, outside: str) -> None:
    a = two.members["a"]
    two.tables.set_floor([("198.51.100.0/24", "FLOOR")])
    two.tables.apply_identity(
        a.identity, 1, [], [External(f"{outside}/32", 443, TCP, ALLOW, 1)], above_floor=True
    )
    assert reaches(two, outside)
    two.denials()
    assert not reaches(two, outside, 444)
    assert ("FLOOR", 444) in two.denials()
    two.tables.apply_identity(a.identity, 1, [], [External(f"{outside}/32", 443, TCP, ALLOW, 1)])
    assert not reaches(two, outside)


def test_one_workloads_flood_of_flows_loses_nobody_elses(two: Laboratory) -> None:
    a, b = two.members["a"], two.members["b"]
    two.allow(("a", "b", 8080, UDP), ("b", "a", 8080, UDP))
    waiting = run_in(b.namespace.path, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    waiting.sendto(b"who", (a.v4, 8080))
    assert waiting.recvfrom(64)[0] == b"a"
    quota = layout.INNER["conntrack"][2]

    def flood() -> None:
        for port in range(20000, 20000 + quota + 2000):
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
                client.bind(("0.0.0.0", port))
                client.sendto(b"who", ("198.51.100.99", 53))

    two.tables.apply_identity(
        a.identity,
        1,
        [Policy(b.identity, 8080, UDP, INGRESS, ALLOW, 1), Policy(b.identity, 8080, UDP, EGRESS, ALLOW, 1)],
        [External("198.51.100.0/24", 53, UDP, ALLOW, 1)],
    )
    run_in(a.namespace.path, flood)
    assert len(two.tables.flows_of(a.namespace.ifindex)) <= quota
    kept = two.tables.flows_of(b.namespace.ifindex)
    assert [
        flow for flow in kept if flow.remote == a.v4 and flow.protocol == UDP and flow.initiator == EGRESS
    ]
    waiting.close()


def test_an_endpoint_without_its_table_of_flows_passes_nothing(two: Laboratory) -> None:
    two.allow(("a", "b", 8080, TCP))
    assert two.members["a"].call(two.members["b"].v4, 8080) == "b", two.denials()
    two.tables.drop_conntrack(two.members["a"].namespace.ifindex)
    two.denials()
    assert two.members["a"].call(two.members["b"].v4, 8080) == ""
    assert {reason for reason, _ in two.denials()} == {"NOT_READY"}
    two.tables.ensure_conntrack(two.members["a"].namespace.ifindex)
    assert two.members["a"].call(two.members["b"].v4, 8080) == "b"


def test_a_scan_of_everything_shares_a_row_once_it_has_had_its_own(two: Laboratory) -> None:
    a = two.members["a"]
    two.tables.drain_flows()

    def scan() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            for port in range(1, 4001):
                client.sendto(b"?", ("203.0.113.9", port))

    run_in(a.namespace.path, scan)
    rows = [
        flow
        for flow in two.tables.drain_flows()
        # What its own kernel announces to groups isn't UDP.
        if flow.source == a.identity and not flow.allowed and flow.protocol == UDP
    ]
    assert len(rows) < 2100
    assert sum(flow.packets for flow in rows) == 4000
    assert any(flow.port == 0 and flow.remote == "" for flow in rows)


def test_an_identity_that_doesnt_fit_leaves_nothing_behind(
    two: Laboratory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is tried again and again: what is left each time would fill the table of everybody's rules."""
    tables = two.tables
    before = tables._maps["policy"].keys()

    def full(key: bytes, value: bytes) -> None:
        raise OSError(errno.E2BIG, "full")

    monkeypatch.setattr(tables._maps["identities"], "set", full)
    for _ in range(2):
        with pytest.raises(OSError, match="full"):
            tables.apply_identity(77, 1, [Policy(300, 8080, TCP, EGRESS, ALLOW, 1)])
    assert set(tables._maps["policy"].keys()) == set(before)
    assert 77 not in tables.usage()


def test_of_rules_that_are_replaced_those_that_deny_go_last(
    two: Laboratory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In whatever order an agent that has just started found them."""
    a, b = (two.members[name].identity for name in "ab")
    denied = [Policy(b, port, TCP, EGRESS, DENY, 2) for port in range(100, 130)]
    two.tables.apply_identity(a, 1, [*denied, Policy(b, 0, TCP, EGRESS, AUDIT, 1)])
    again = Tables(two.config)
    gone: list[int] = []
    remove = again._maps["policy"].delete

    def delete(key: bytes) -> bool:
        gone.append(layout.POLICY_KEY.unpack(key)[3])
        return remove(key)

    monkeypatch.setattr(again._maps["policy"], "delete", delete)
    try:
        again.apply_identity(a, 1, [])
    finally:
        again.close()
    assert gone[0] == 0 and len(gone) == 31
