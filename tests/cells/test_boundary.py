"""Properties of the boundary compiler that hold for every topology."""

from __future__ import annotations

import ipaddress
from collections import Counter
from dataclasses import replace

from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from cells.boundary import compile_topology, explain, model
from cells.boundary.edges import decide
from cells.boundary.model import EGRESS, INGRESS, PROTOCOLS, TCP, UDP, Topology
from tests.cells.topologies import (
    CIDRS,
    HOSTS,
    PLATFORM,
    Way,
    changed,
    normal,
    number_of,
    passes,
    rights,
    topologies,
    ways,
)

many = settings(max_examples=70, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@many
@given(topologies())
def test_nothing_is_open_that_no_declaration_opened(topology: Topology) -> None:
    """Every call that passes leads to a declared endpoint of the same tenant and environment."""
    everyone = topology.by_identity()
    for way in ways(topology, compile_topology(topology)):
        cell, consumer = everyone[way.consumer]
        other, provider = everyone[way.provider]
        endpoint = next(e for e in provider.endpoints if (e.port, number_of(e)) == (way.port, way.protocol))
        assert (cell.tenant, cell.environment) == (other.tenant, other.environment)
        if way.consumer == way.provider:
            continue
        linked = any(c.provider == way.provider and c.endpoint == endpoint.name for c in consumer.connections)
        if cell.number != other.number:
            assert linked
            assert endpoint.visibility != "cell"
            assert bool(way.gateway) == (endpoint.protocol in ("http", "grpc"))
        elif cell.strict or endpoint.callers:
            assert linked
        if endpoint.callers:
            assert way.gateway, "callers' names come from the gateway alone"


@many
@given(topologies())
def test_without_declarations_nothing_but_the_platforms_own_is_there(topology: Topology) -> None:
    bare = topology
    for identity in topology.by_identity():
        bare = changed(bare, identity, endpoints=(), connections=())
    boundary = compile_topology(bare)
    assert ways(bare, boundary) == set()
    for identity in bare.by_identity():
        policy = boundary.identities[identity]
        assert {entry[0] for entry in policy.policy} == {model.IDENTITY_RESOLVER}
        assert policy.external == []
    assert (boundary.services, boundary.routes, boundary.clusters, boundary.listeners) == ([], [], [], [])


@many
@given(topologies())
def test_another_tenant_is_in_no_table(topology: Topology) -> None:
    boundary = compile_topology(topology)
    tenant = {w: cell.tenant for w, (cell, _) in topology.by_identity().items()}
    tenant |= {cell.gateway_identity: cell.tenant for cell in topology.cells}
    owners = {address: identity for address, (identity, _) in boundary.addresses.items()}
    for cell in topology.cells:
        for workload in cell.workloads:
            owners[workload.service4] = owners[workload.service6] = workload.identity
    for identity, policy in boundary.identities.items():
        for remote, *_ in policy.policy:
            if identity in tenant and remote in tenant:
                assert tenant[identity] == tenant[remote]
    for identity, names in boundary.names.items():
        for addresses in names.values():
            for address in addresses:
                assert tenant.get(owners.get(address, 0), tenant[identity]) == tenant[identity]
    for service in boundary.services:
        for _, address, _ in service.backends:
            if service.consumer:
                assert tenant.get(owners[address], tenant[service.consumer]) == tenant[service.consumer]


@many
@given(topologies())
def test_what_one_may_send_the_other_may_receive(topology: Topology) -> None:
    boundary = compile_topology(topology)
    everyone = set(topology.by_identity()) | {cell.gateway_identity for cell in topology.cells}
    for identity, policy in boundary.identities.items():
        for remote, port, protocol, direction, _, _ in policy.policy:
            if identity in everyone and remote in everyone:
                mirror = INGRESS if direction == EGRESS else EGRESS
                assert rights(boundary, remote, identity, port, protocol, mirror)
            elif direction == INGRESS and identity in everyone:
                assert remote == model.IDENTITY_NORTH, "from outside by the north gateway only"


@many
@given(topologies())
def test_the_internet_and_builds_reach_no_workload_and_no_resolver(topology: Topology) -> None:
    boundary = compile_topology(topology)
    outside = (model.IDENTITY_WORLD, model.IDENTITY_NODE, *model.IDENTITY_BUILDS)
    for identity, (_, workload) in topology.by_identity().items():
        for remote in outside:
            for port in (53, 8000, 8001, 9999):
                for protocol in (TCP, UDP):
                    assert not rights(boundary, identity, remote, port, protocol, INGRESS)
        for endpoint in workload.endpoints:
            public = endpoint.visibility == "public" and bool(endpoint.hosts)
            north = passes(boundary, model.IDENTITY_NORTH, identity, endpoint.port, number_of(endpoint))
            assert north == public
    for remote in outside:
        for protocol in (TCP, UDP):
            assert not rights(boundary, model.IDENTITY_RESOLVER, remote, 53, protocol, INGRESS)
    for identity in topology.by_identity():
        assert passes(boundary, identity, model.IDENTITY_RESOLVER, 53, UDP)


@many
@given(topologies())
def test_strict_allows_a_part_of_what_is_allowed_without(topology: Topology) -> None:
    loose = replace(topology, cells=tuple(replace(cell, strict=False) for cell in topology.cells))
    strict = replace(topology, cells=tuple(replace(cell, strict=True) for cell in topology.cells))
    inside = ways(strict, compile_topology(strict))
    assert inside <= ways(loose, compile_topology(loose))
    everyone = topology.by_identity()
    for way in inside:
        linked = any(c.provider == way.provider for c in everyone[way.consumer][1].connections)
        assert linked or way.consumer == way.provider


@many
@given(topologies())
def test_the_explanation_says_what_the_tables_do(topology: Topology) -> None:
    open_ways = {
        (w.consumer, w.provider, w.port, w.protocol, w.gateway)
        for w in ways(topology, compile_topology(topology))
    }
    everyone = topology.by_identity()
    words = {TCP: "tcp", UDP: "udp"}
    for source in everyone:
        for destination, (cell, provider) in everyone.items():
            asked = {(e.port, number_of(e)) for e in provider.endpoints} | {(9999, TCP)}
            for port, protocol in asked:
                answer = explain(topology, source, destination, port, words[protocol])
                gateway = cell.gateway_identity if answer.via_gateway else 0
                direct = (source, destination, port, protocol, gateway)
                assert answer.allowed == (direct in open_ways), (direct, answer)
                assert answer.sentence.endswith(".")
                if not answer.allowed:
                    assert answer.reason not in ("SELF", "SAME_CELL", "CONNECTION")


@many
@given(
    topologies(),
    st.sampled_from([*CIDRS, "192.0.2.1", "169.254.169.254", "203.0.113.77"]),
    st.sampled_from((80, 443)),
)
def test_the_explanation_of_the_outside_says_what_the_tables_do(
    topology: Topology, destination: str, port: int
) -> None:
    boundary = compile_topology(topology)
    network = ipaddress.ip_network(destination)
    for identity in topology.by_identity():
        for word, number in (("tcp", TCP), ("udp", UDP)):
            inside = any(
                network.version == ipaddress.ip_network(cidr).version
                and network.subnet_of(ipaddress.ip_network(cidr))  # type: ignore[arg-type]
                and (entry_port, protocol) == (port, number)
                for cidr, entry_port, protocol, _, _ in boundary.identities[identity].external
            )
            floored = any(
                network.version == ipaddress.ip_network(cidr).version
                and network.subnet_of(ipaddress.ip_network(cidr))  # type: ignore[arg-type]
                for cidr, _ in boundary.floor
            )
            answer = explain(topology, identity, destination, port, word)
            assert answer.allowed == (inside and not floored)
            assert (answer.reason == "FLOOR") == floored


@many
@given(topologies())
def test_public_hosts_are_explained_and_reached_only_where_they_are_declared(topology: Topology) -> None:
    boundary = compile_topology(topology)
    for identity, (_, workload) in topology.by_identity().items():
        declared = {c.external.host for c in workload.connections if c.external and c.external.host}
        for host in HOSTS:
            known = boundary.names.get(identity, {}).get(host)
            assert (known == (topology.door4, topology.door6)) == (host in declared)
            assert explain(topology, identity, host).allowed == (host in declared)
        # Never by the common listener: there, any public host could be named.
        assert not rights(boundary, identity, model.IDENTITY_NORTH, topology.north_port, TCP, EGRESS)
        services = [s for s in boundary.services if (s.consumer, s.address) == (identity, topology.door4)]
        assert {s.port for s in services} == (set(topology.public_ports) if declared else set())
        ports = {service.backends[0][2] for service in services}
        doors = [door for door in boundary.doors if door.port in ports]
        assert [set(door.hosts) for door in doors] == ([declared] if declared else [])
        for door in boundary.doors:
            open_to = passes(boundary, identity, model.IDENTITY_NORTH, door.port, TCP)
            assert open_to == (door in doors)


@many
@given(topologies())
def test_the_internets_explanation_says_what_the_routes_do(topology: Topology) -> None:
    boundary = compile_topology(topology)
    hosts = {route.host for route in boundary.routes}
    for identity, (_, workload) in topology.by_identity().items():
        for endpoint in workload.endpoints:
            if number_of(endpoint) != TCP:
                continue
            answer = explain(topology, "internet", identity, endpoint.port)
            assert answer.allowed == bool(set(endpoint.hosts) & hosts)
        anything = any(set(e.hosts) & hosts for e in workload.endpoints)
        assert explain(topology, "internet", identity).allowed == anything


@many
@given(topologies(), st.randoms(use_true_random=False))
def test_the_order_of_the_input_doesnt_matter(topology: Topology, dice) -> None:  # type: ignore[no-untyped-def]
    def mixed(values: tuple) -> tuple:
        return tuple(dice.sample(values, k=len(values)))

    cells = tuple(
        replace(
            cell,
            workloads=mixed(
                tuple(
                    replace(
                        w,
                        endpoints=mixed(w.endpoints),
                        connections=mixed(w.connections),
                        replicas=mixed(w.replicas),
                    )
                    for w in cell.workloads
                )
            ),
        )
        for cell in topology.cells
    )
    again = replace(topology, cells=mixed(cells))
    assert normal(compile_topology(again)) == normal(compile_topology(topology))


@many
@given(topologies(), st.data())
def test_a_connection_opens_exactly_its_edge(topology: Topology, data: st.DataObject) -> None:
    everyone = topology.by_identity()
    targets = [(w.identity, e) for _, w in everyone.values() for e in w.endpoints]
    assume(targets)
    consumer = data.draw(st.sampled_from(sorted(everyone)))
    provider, endpoint = data.draw(st.sampled_from(targets))
    new = model.Connection(99999, "NEW", provider, endpoint.name, listener_port=59999)
    more = changed(topology, consumer, connections=(*everyone[consumer][1].connections, new))
    before, after = ways(topology, compile_topology(topology)), ways(more, compile_topology(more))
    edge = (consumer, provider, endpoint.port, number_of(endpoint))
    assert before <= after
    assert {(w.consumer, w.provider, w.port, w.protocol) for w in after - before} <= {edge}
    cell, row = more.by_identity()[consumer]
    wanted = decide(cell, row, *more.by_identity()[provider], endpoint)
    assert wanted.allowed == any((w.consumer, w.provider, w.port, w.protocol) == edge for w in after)
    boundary = compile_topology(more)
    assert {e for i in everyone for e in boundary.identities[i].external} == {
        e for i in everyone for e in compile_topology(topology).identities[i].external
    }


@many
@given(topologies())
def test_a_gateways_listener_is_its_consumers_alone(topology: Topology) -> None:
    boundary = compile_topology(topology)
    everyone = topology.by_identity()
    gateways = {cell.gateway4: cell for cell in topology.cells}
    rules = {c.rule: (i, c) for i, (_, w) in everyone.items() for c in w.connections}
    for listener in boundary.listeners:
        consumer, connection = rules[int(listener.name.removeprefix("connection-"))]
        gateway = gateways[listener.address4].gateway_identity
        allowed = {i for i in everyone if passes(boundary, i, gateway, listener.port, TCP)}
        assert allowed == {consumer}
        assert (
            not passes(boundary, model.IDENTITY_WORLD, gateway, listener.port, TCP)
            if (model.IDENTITY_WORLD in boundary.identities)
            else True
        )
        cell, workload = everyone[consumer]
        told = next(
            e.callers for e in everyone[connection.provider][1].endpoints if e.name == connection.endpoint
        )
        assert listener.caller == (f"{cell.tenant_name}/{cell.project}/{workload.name}" if told else "")
        assert listener.port == connection.listener_port


@many
@given(topologies())
def test_nothing_is_there_twice(topology: Topology) -> None:
    """Envoy refuses a whole update with a name or an address in it twice, everybody's."""
    boundary = compile_topology(topology)
    for keys in (
        [item.name for item in boundary.listeners],
        [(item.address4, item.port) for item in boundary.listeners]
        + [(door.address4, door.port) for door in boundary.doors],
        [item.name for item in boundary.doors],
        [cluster.name for cluster in boundary.clusters],
        [route.host for route in boundary.routes],
        [(s.consumer, s.address, s.port, s.protocol) for s in boundary.services],
    ):
        twice = [key for key, number in Counter(keys).items() if number > 1]
        assert not twice
    clusters = {cluster.name for cluster in boundary.clusters}
    assert {item.cluster for item in boundary.listeners} <= clusters
    assert {route.cluster for route in boundary.routes} <= clusters


@many
@given(topologies())
def test_only_serving_replicas_get_traffic_and_every_replica_has_its_identity(topology: Topology) -> None:
    boundary = compile_topology(topology)
    for identity, (_, workload) in topology.by_identity().items():
        for replica in workload.replicas:
            assert boundary.addresses[replica.v4] == boundary.addresses[replica.v6] == (identity, replica.id)
        serving = {r.id for r in workload.replicas if r.serving}
        for service in boundary.services:
            if service.consumer == 0 and service.address == workload.service4:
                assert {b[0] for b in service.backends} == serving
        for endpoint in workload.endpoints:
            for cluster in boundary.clusters:
                if cluster.name in (f"north-{endpoint.rule}", f"cell-{endpoint.rule}"):
                    assert {b[0] for b in cluster.backends} == serving
                    assert {b[2] for b in cluster.backends} <= {endpoint.port}


@many
@given(topologies())
def test_names_resolve_to_what_may_be_called_and_to_nothing_else(topology: Topology) -> None:
    boundary = compile_topology(topology)
    everyone = topology.by_identity()
    open_ways = ways(topology, boundary)
    addresses = {w.service4: i for i, (_, w) in everyone.items()}
    for identity in everyone:
        for name, (v4, _) in boundary.names.get(identity, {}).items():
            if v4 == topology.door4:
                continue
            target = addresses[v4]
            assert target == identity or any(
                (w.consumer, w.provider) == (identity, target) for w in open_ways
            ), name


def test_the_platforms_own_identities_never_appear_as_a_workloads() -> None:
    assert max(PLATFORM) < 256
    assert set(PROTOCOLS) == {"http", "grpc", "tcp", "udp", "icmp"}
    assert Way(1, 2, 3, 4) < Way(1, 2, 3, 5)
