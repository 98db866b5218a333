"""Limits, weights, ways to choose and ping in what the compiler makes."""

from __future__ import annotations

from dataclasses import replace

from cells.boundary import compile_topology
from cells.boundary.model import (
    ALLOW,
    EGRESS,
    ICMP,
    ICMPV6,
    INGRESS,
    Boundary,
    Cell,
    Connection,
    Endpoint,
    External,
    Replica,
    Topology,
    Workload,
)

FRONT, BACK, OTHER = 300, 301, 302
API = Endpoint(900, "api", 8080, "tcp", "tenant")


def workload(identity: int, name: str, **more) -> Workload:
    return Workload(identity, name, f"10.65.0.{identity % 256}", f"fd00::{identity}", **more)


def cell(number: int, tenant: int, *workloads: Workload, strict: bool = False) -> Cell:
    return Cell(
        number, tenant, f"t{tenant}", f"p{number}", "production", 800 + number, 600 + number,
        f"10.64.9.{number}", f"fd00:9::{number}", strict, workloads=workloads,
    )  # fmt: skip


def compiled(*cells: Cell) -> Boundary:
    return compile_topology(Topology(cells=cells, north4="10.64.0.1", north6="fd00::1"))


def pings(boundary: Boundary) -> set[tuple[int, int]]:
    """(who, whom) may send echoes, in both families and at both ends."""
    entries = {
        (identity, remote, protocol, direction)
        for identity, policy in boundary.identities.items()
        for remote, port, protocol, direction, verdict, _ in policy.policy
        if protocol in (ICMP, ICMPV6) and verdict == ALLOW and port == 0
    }
    ways = {(a, b) if way == EGRESS else (b, a) for a, b, _, way in entries}
    for a, b in ways:
        for protocol in (ICMP, ICMPV6):
            assert {(a, b, protocol, EGRESS), (b, a, protocol, INGRESS)} <= entries
    return ways


def test_a_limit_is_kept_under_the_identity_and_no_limit_nowhere() -> None:
    limited = workload(FRONT, "front", limits=(1250, 2500, 10, 100))
    found = compiled(cell(1, 1, limited, workload(BACK, "back")))
    assert found.limits == {FRONT: (1250, 2500, 10, 100)}


def test_a_service_has_its_endpoints_choice_and_its_replicas_weights() -> None:
    replicas = (
        Replica("r1", "10.64.1.1", "fd00:1::1", True, weight=50),
        Replica("r2", "10.64.1.2", "fd00:1::2", False, weight=70),
        Replica("r3", "10.64.1.3", "fd00:1::3", True, weight=200),
    )
    endpoint = replace(API, balance="consistent", affinity=600)
    found = compiled(cell(1, 1, workload(BACK, "back", endpoints=(endpoint,), replicas=replicas)))
    for service in found.services:
        assert (service.choice, service.affinity) == ("consistent", 600)
        assert [b[0] for b in service.backends] == ["r1", "r3"]
        assert service.weights == (50, 200)


def test_the_gateway_is_told_who_must_stay_where_he_is() -> None:
    def clusters(**options) -> list[bool]:
        endpoint = Endpoint(900, "http", 8080, "http", "public", ("h",), **options)
        return [
            c.sticky for c in compiled(cell(1, 1, workload(BACK, "back", endpoints=(endpoint,)))).clusters
        ]

    assert clusters() == [False]
    assert clusters(balance="consistent") == clusters(affinity=5) == [True]


def test_who_may_call_may_ping_and_nobody_else() -> None:
    front, back = workload(FRONT, "front"), workload(BACK, "back", endpoints=(API,), ping=True)
    stranger = cell(2, 2, workload(OTHER, "other"))
    assert pings(compiled(cell(1, 1, front, back), stranger)) == {(FRONT, BACK), (BACK, BACK)}
    # In a strict project a connection is needed, from another cell too.
    assert pings(compiled(cell(1, 1, front, back, strict=True))) == {(BACK, BACK)}
    connected = replace(front, connections=(Connection(950, "API", BACK, "api"),))
    assert (FRONT, BACK) in pings(compiled(cell(1, 1, connected, back, strict=True)))
    neighbour = cell(2, 1, workload(OTHER, "other", connections=(Connection(951, "API", BACK, "api"),)))
    assert (OTHER, BACK) in pings(compiled(cell(1, 1, front, back), neighbour))
    assert (OTHER, BACK) not in pings(compiled(cell(1, 1, front, back), replace(neighbour, tenant=2)))


def test_without_ping_no_echo_passes() -> None:
    back = workload(BACK, "back", endpoints=(API,))
    assert pings(compiled(cell(1, 1, workload(FRONT, "front"), back))) == set()


def test_a_network_outside_is_pinged_by_its_own_protocol() -> None:
    outside = tuple(
        Connection(960 + n, "OUT", external=External(0, "icmp", cidr=cidr))
        for n, cidr in enumerate(("192.0.2.0/24", "2001:db8::/32"))
    )
    found = compiled(cell(1, 1, workload(FRONT, "front", connections=outside)))
    assert found.identities[FRONT].external == [
        ("192.0.2.0/24", 0, ICMP, ALLOW, 960),
        ("2001:db8::/32", 0, ICMPV6, ALLOW, 961),
    ]
