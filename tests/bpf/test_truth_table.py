"""What may pass between workloads, by hand-written state, over real sockets."""

from __future__ import annotations

import itertools

import pytest

from bpf.tables import ALLOW, DENY, EGRESS, External, Policy
from tests.bpf.laboratory import ICMP, ICMPV6, TCP, UDP, Laboratory

pytestmark = pytest.mark.root


@pytest.fixture
def three(laboratory: Laboratory) -> Laboratory:
    for number, name in enumerate(("a", "b", "c")):
        member = laboratory.workload(name, 300 + number, 1024 + number)
        for protocol, port in itertools.product((TCP, UDP), (8080, 8081)):
            member.listen(protocol, port)
    laboratory.serve(*itertools.product("abc", (8080, 8081), (TCP, UDP)))
    return laboratory


def test_only_declared_edges_pass_by_every_way(three: Laboratory) -> None:
    allowed = {("a", "b", 8080, TCP), ("a", "b", 8081, UDP), ("b", "c", 8080, UDP)}
    three.allow(*allowed)
    wrong = []
    for consumer, provider, port, protocol, family, by_service in itertools.product(
        "abc", "abc", (8080, 8081), (TCP, UDP), (4, 6), (False, True)
    ):
        if consumer == provider and not by_service:
            continue  # its own address never leaves the namespace
        source, target = three.members[consumer], three.members[provider]
        answer = source.call(target.address(family, by_service), port, protocol)
        # Its own service leads a workload back to itself, always.
        passes = consumer == provider or (consumer, provider, port, protocol) in allowed
        expected = provider if passes else ""
        if answer != expected:
            wrong.append((consumer, provider, port, protocol, family, by_service, answer))
    assert wrong == []


def test_a_denied_call_is_refused_at_once_and_recorded(three: Laboratory) -> None:
    three.allow()
    # Told, and not found out by silence.
    with pytest.raises(ConnectionRefusedError):
        three.members["a"].connected(three.members["b"].v4, 8080)
    assert ("NO_RULE", 8080) in three.denials()


def test_deny_beats_allow(three: Laboratory) -> None:
    three.allow(("a", "b", 8080, TCP))
    three.tables.apply_identity(
        300, 1, [Policy(301, 8080, TCP, EGRESS, ALLOW, 1), Policy(0, 0, TCP, EGRESS, DENY, 2)]
    )
    assert three.members["a"].call(three.members["b"].v4, 8080) == ""
    assert ("DENIED", 8080) in three.denials()


def test_ingress_is_judged_by_the_receiver_on_its_own(three: Laboratory) -> None:
    three.tables.apply_identity(300, 1, [Policy(301, 8080, TCP, EGRESS, ALLOW, 1)])
    three.tables.apply_identity(301, 1, [])
    assert three.members["a"].call(three.members["b"].v4, 8080) == ""
    flows = [f for f in three.tables.drain_flows() if not f.allowed and f.direction == 1 and f.port == 8080]
    assert flows and flows[0].reason == "NO_RULE" and flows[0].source == 300


def test_a_service_without_backend_is_refused_with_its_reason(three: Laboratory) -> None:
    three.allow(("a", "b", 8080, TCP))
    three.serve(("b", 8080, TCP))
    assert three.members["a"].call(three.members["b"].service4, 8081) == ""
    assert ("NO_SERVICE", 8081) in three.denials()


def test_unconnected_and_mapped_sockets_reach_the_same_service(three: Laboratory) -> None:
    three.allow(("a", "b", 8080, TCP))
    assert three.members["a"].call(f"::ffff:{three.members['b'].service4}", 8080) == "b"
    assert three.members["a"].call(f"::ffff:{three.members['c'].service4}", 8080) == ""


def test_egress_follows_prefixes_and_the_floor_comes_first(three: Laboratory) -> None:
    member = three.members["a"]
    three.tables.set_floor([("169.254.0.0/16", "FLOOR"), ("198.51.100.7/32", "NODE")])
    three.tables.apply_identity(
        300,
        1,
        [],
        [
            External("198.51.100.0/24", 443, TCP, ALLOW, 9),
            External("169.254.0.0/16", 0, TCP, ALLOW, 9),
            External("198.51.100.128/25", 443, TCP, DENY, 10),
        ],
    )
    for address, port, reason in (
        ("203.0.113.1", 443, "EGRESS"),
        ("198.51.100.1", 80, "EGRESS"),
        ("169.254.169.254", 80, "FLOOR"),
        ("198.51.100.7", 443, "NODE"),
        ("198.51.100.200", 443, "DENIED"),
    ):
        three.denials()
        assert member.call(address, port) == ""
        assert (reason, port) in three.denials(), address


def test_narrowing_a_policy_ends_what_it_no_longer_allows(three: Laboratory) -> None:
    three.allow(("a", "b", 8080, TCP), ("a", "c", 8080, TCP))
    cut = three.members["a"].connected(three.members["b"].service4, 8080)
    kept = three.members["a"].connected(three.members["c"].v6, 8080)
    three.allow(("a", "c", 8080, TCP))
    for connection, answer in ((cut, b""), (kept, b"still")):
        connection.settimeout(0.5)
        connection.sendall(b"still")
        try:
            got = connection.recv(64)
        except TimeoutError:
            got = b""
        assert got == answer
        connection.close()
    assert ("REVOKED", 8080) in three.denials()


def test_forgotten_flows_in_the_middle_are_judged_by_either_direction(three: Laboratory) -> None:
    three.allow(("a", "b", 8080, TCP))
    connection = three.members["a"].connected(three.members["b"].v4, 8080)
    for member in three.members.values():
        three.tables.purge_conntrack(member.namespace.ifindex)
    connection.settimeout(1)
    connection.sendall(b"again")
    assert connection.recv(64) == b"again"
    connection.close()


def test_echo_passes_only_where_it_is_declared(three: Laboratory) -> None:
    import subprocess

    def ping(address: str) -> bool:
        name = three.members["a"].namespace.path.name
        command = ["ip", "netns", "exec", name, "ping", "-c1", "-W1", "-q", address]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0

    three.allow(("a", "b", 0, ICMP), ("a", "b", 0, ICMPV6))
    assert ping(three.members["b"].v4) and ping(three.members["b"].v6)
    assert not ping(three.members["c"].v4)
    assert ("NO_RULE", 0) in {(reason, 0) for reason, _ in three.denials()}
