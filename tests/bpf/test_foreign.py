"""Pods whose interfaces a CNI made: who reaches whom, on the node and across nodes."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from bpf.tables import ALLOW, INGRESS, Policy, Service, Tables
from dataplane.agent.namespaces import run_in
from infra.config import Config
from tests.bpf.laboratory import TCP, UDP
from tests.bpf.nodes import FAR4, FAR6, FAR_IDENTITY, NODE_IDENTITY, WAY4, WAY6, Ear, Node, send_datagram

pytestmark = pytest.mark.root


@pytest.fixture(params=["ptp", "bridge"])
def node(request: pytest.FixtureRequest, kernel: Config, tables: Tables) -> Iterator[Node]:
    made = Node(kernel, tables, request.param)
    try:
        made.build()
        yield made
    finally:
        made.close()


def test_what_is_declared_passes_between_pods_and_nothing_else(node: Node) -> None:
    a, b = node.pod("a", 400, 5), node.pod("b", 401, 6)
    for member in (a, b):
        for protocol in (TCP, UDP):
            member.listen(protocol, 8080)
            member.listen(protocol, 9090)
    node.allow((400, 401, 8080, TCP), (400, 401, 8080, UDP))
    for family in (4, 6):
        for protocol in (TCP, UDP):
            assert a.call(b.address(family), 8080, protocol, 2) == "b", (family, protocol)
            assert a.call(b.address(family), 9090, protocol) == ""
            assert b.call(a.address(family), 8080, protocol) == ""


def test_a_pod_and_a_namespace_of_the_platform_reach_each_other(node: Node) -> None:
    a, gateway = node.pod("a", 400, 5), node.workload("gw", 402, 1100)
    for member in (a, gateway):
        for protocol in (TCP, UDP):
            member.listen(protocol, 8080)
    node.allow((400, 402, 8080, TCP), (400, 402, 8080, UDP), (402, 400, 8080, TCP))
    for family in (4, 6):
        assert a.call(gateway.address(family), 8080, TCP, 2) == "gw"
        assert a.call(gateway.address(family), 8080, UDP, 2) == "gw"
        assert gateway.call(a.address(family), 8080, TCP, 2) == "a"
        assert gateway.call(a.address(family), 8080, UDP) == ""


def test_other_nodes_have_their_pods_addresses_by_the_underlay(node: Node) -> None:
    a = node.pod("a", 400, 5)
    a.listen(UDP, 8080)
    node.allow((400, FAR_IDENTITY, 8080, UDP), (FAR_IDENTITY, 400, 8080, UDP))
    with Ear(node.far.path, 8080) as there:
        for address in (node.far.v4, node.far.v6):
            a.call(address, 8080, UDP, 0.05)
        assert set(there.heard()) == {a.v4, a.v6}
    with Ear(a.namespace.path, 8081) as here:
        node.allow((FAR_IDENTITY, 400, 8081, UDP))
        for source, target in ((node.far.v4, a.v4), (node.far.v6, a.v6)):
            send_datagram(node.far.path, source, target, 8081)
            send_datagram(node.far.path, source, target, 8080)
        assert here.heard() == [node.far.v4, node.far.v6]
        # Known flows too, until the interface isn't trusted any more.
        send_datagram(node.far.path, node.far.v4, a.v4, 8081)
        assert here.heard() == [node.far.v4]
        node.tables.set_underlays([])
        send_datagram(node.far.path, node.far.v4, a.v4, 8081)
        assert here.heard() == []
    assert "SPOOFED_SOURCE" in node.refusals()


def test_nobody_beyond_the_underlay_is_a_pod_of_this_node_or_a_stranger_a_pod(node: Node) -> None:
    a, b = node.pod("a", 400, 5), node.pod("b", 401, 6)
    node.open_everything(8080)
    b.listen(UDP, 8080)
    assert a.call(b.v4, 8080, UDP, 2) == "b"
    with Ear(a.namespace.path, 8080) as here:
        node.refusals()
        for source, target in ((b.v4, a.v4), (b.v6, a.v6)):
            send_datagram(node.far.path, source, target, 8080)
        assert here.heard() == [] and node.refusals() == {"SPOOFED_SOURCE"}
        for source, target in ((f"{FAR4}66", a.v4), (f"{FAR6}66", a.v6)):
            send_datagram(node.far.path, source, target, 8080)
        assert here.heard() == [] and node.refusals() == {"NO_RULE"}
        # The platform's own range means something on one node alone.
        node.far.ip(f"route add {node.config.workloads4} dev way")
        send_datagram(node.far.path, str(node.config.workloads4[1100]), a.v4, 8080)
        assert here.heard() == [] and node.refusals() == {"SPOOFED_SOURCE"}


def test_a_pod_that_isnt_the_platforms_pretends_to_be_nobody(node: Node) -> None:
    a, b, gateway = node.pod("a", 400, 5), node.pod("b", 401, 6), node.workload("gw", 402, 1100)
    stranger = node.wire("x", 66)
    node.open_everything(8080)
    targets = {6: (b.v6, gateway.v6, node.far.v6), 4: (b.v4, gateway.v4, node.far.v4)}
    with (
        Ear(b.namespace.path, 8080) as at_b,
        Ear(gateway.namespace.path, 8080) as at_gateway,
        Ear(node.far.path, 8080) as far_away,
    ):
        ears = (at_b, at_gateway, far_away)
        for family, ends in targets.items():
            own, elsewhere = a.address(family), node.far.v4 if family == 4 else node.far.v6
            # The real one first: then there are flows that the forged ones would belong to.
            for end in ends:
                send_datagram(a.namespace.path, own, end, 8080)
            assert [ear.heard() for ear in ears] == [[own]] * 3
            node.refusals()
            for end in ends:
                send_datagram(stranger.path, own, end, 8080)
                if end != elsewhere:
                    send_datagram(stranger.path, elsewhere, end, 8080)
            assert [ear.heard() for ear in ears] == [[]] * 3
            assert node.refusals() == {"SPOOFED_SOURCE"}


def test_a_strangers_own_address_is_an_address_outside(node: Node) -> None:
    a, gateway = node.pod("a", 400, 5), node.workload("gw", 402, 1100)
    stranger = node.wire("x", 66)
    node.open_everything(8080)
    # The first of a stranger's packets wait for the way to be found.
    with Ear(node.far.path, 8080, patience=1.5) as far_away:
        send_datagram(stranger.path, stranger.v4, node.far.v4, 8080)
        send_datagram(stranger.path, stranger.v6, node.far.v6, 8080)
        # It isn't ours: nothing of it is touched.
        assert far_away.heard() == [stranger.v4, stranger.v6]
    with Ear(a.namespace.path, 8080) as at_a, Ear(gateway.namespace.path, 8080) as at_gateway:
        node.refusals()
        for target in (a, gateway):
            send_datagram(stranger.path, stranger.v4, target.v4, 8080)
            send_datagram(stranger.path, stranger.v6, target.v6, 8080)
        assert at_a.heard() == [] and at_gateway.heard() == []
        assert node.refusals() == {"NO_RULE"}


def test_another_node_is_a_stranger_and_this_one_comes_from_nowhere_else(node: Node) -> None:
    a, gateway = node.pod("a", 400, 5), node.workload("gw", 402, 1100)
    world = Policy(2, 8080, UDP, INGRESS, ALLOW, 1)
    node.tables.apply_identity(402, 1, [world])
    node.tables.apply_identity(400, 1, [Policy(NODE_IDENTITY, 8080, UDP, INGRESS, ALLOW, 1)])
    floor = [(f"{way}{n}/{bits}", "NODE") for way, bits in ((WAY4, 32), (WAY6, 128)) for n in (1, 2)]
    node.tables.set_floor(floor)
    with Ear(a.namespace.path, 8080) as at_a, Ear(gateway.namespace.path, 8080) as at_gateway:
        for way, target in ((WAY4, gateway.v4), (WAY6, gateway.v6)):
            node.far.ip(f"route replace {target} via {way}1")
            send_datagram(node.far.path, f"{way}2", target, 8080)
        assert at_gateway.heard() == [f"{WAY4}2", f"{WAY6}2"]
        node.refusals()
        for way, target in ((WAY4, a.v4), (WAY6, a.v6)):
            send_datagram(node.far.path, f"{way}2", target, 8080)
            # Not the node itself either, whoever says so from there.
            send_datagram(node.far.path, f"{way}1", target, 8080)
        assert at_a.heard() == [] and node.refusals() == {"NO_RULE"}


def test_a_pod_cant_send_as_another(node: Node) -> None:
    a, b, gateway = node.pod("a", 400, 5), node.pod("b", 401, 6), node.workload("gw", 402, 1100)
    node.open_everything(8080)
    with Ear(gateway.namespace.path, 8080) as ear, Ear(node.far.path, 8080) as far_away:
        for family, target in ((4, gateway.v4), (6, gateway.v6), (4, node.far.v4), (6, node.far.v6)):
            for claimed in (b.address(family), node.far.v4 if family == 4 else node.far.v6):
                if claimed != target:
                    send_datagram(a.namespace.path, claimed, target, 8080)
        assert ear.heard() == [] and far_away.heard() == []
        assert node.refusals() == {"SPOOFED_SOURCE"}


def test_the_node_reaches_a_probe_port_and_no_other(node: Node) -> None:
    a = node.pod("a", 400, 5)
    a.listen(TCP, 8080)
    a.listen(TCP, 9090)
    node.tables.apply_identity(400, 1, [Policy(NODE_IDENTITY, 8080, TCP, INGRESS, ALLOW, 3)])
    node.refusals()
    for address in (a.v4, a.v6):
        assert called(node.here.path, address, 8080) == "a"
        assert called(node.here.path, address, 9090) == ""
    assert node.refusals() == {"NO_RULE"}


def called(place: Path, address: str, port: int) -> str:
    """What a server at the address says to somebody in a namespace; "" if nothing."""

    def call() -> str:
        try:
            with socket.create_connection((address, port), timeout=0.5) as client:
                return client.recv(64).decode()
        except OSError:
            return ""

    return run_in(place, call)


def test_large_datagrams_cross_in_fragments(node: Node) -> None:
    a, b, gateway = node.pod("a", 400, 5), node.pod("b", 401, 6), node.workload("gw", 402, 1100)
    node.open_everything(8080)

    with (
        Ear(b.namespace.path, 8080) as one,
        Ear(gateway.namespace.path, 8080) as two,
        Ear(node.far.path, 8080) as three,
    ):
        for target in (b.v4, b.v6, gateway.v4, gateway.v6, node.far.v4, node.far.v6):
            # Twice: the first may wait for a neighbour, who may not keep all parts of it.
            for _ in range(2):
                run_in(a.namespace.path, partial(send_large, target))
        for ear in (one, two, three):
            assert set(ear.heard()) == {a.v4, a.v6}


def send_large(target: str) -> None:
    family = socket.AF_INET6 if ":" in target else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as client:
        client.sendto(b"x" * 5000, (target, 8080))


def test_service_addresses_lead_to_pods(node: Node) -> None:
    a, b = node.pod("a", 400, 5), node.pod("b", 401, 6)
    b.listen(TCP, 8080)
    b.listen(UDP, 8080)
    node.allow((400, 401, 8080, TCP), (400, 401, 8080, UDP))
    node.tables.set_services(
        [
            Service(0, service, 8080, protocol, ((address, 8080),))
            for service, address in ((b.service4, b.v4), (b.service6, b.v6))
            for protocol in (TCP, UDP)
        ]
    )
    for service in (b.service4, b.service6):
        assert a.call(service, 8080, TCP, 2) == "b"
        assert a.call(service, 8080, UDP, 2) == "b"
    assert b.call(b.service4, 8080, TCP, 2) == "b"
