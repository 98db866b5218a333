"""Random topologies for properties of the compiler, and its result read back as a kernel would use it."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from typing import Any

from hypothesis import strategies as st

from cells.boundary import model
from cells.boundary.model import ALLOW, DENY, EGRESS, INGRESS, PROTOCOLS, TCP, Boundary, Topology

FLOOR = (("169.254.0.0/16", "FLOOR"), ("10.64.0.0/15", "FLOOR"), ("fe80::/10", "FLOOR"))
CIDRS = (
    "203.0.113.0/24",
    "198.51.100.7/32",
    "0.0.0.0/0",
    "169.254.169.254/32",
    "10.64.9.0/24",
    "2001:db8::/32",
)
HOSTS = ("shop.t1.localhost", "desk.t2.localhost")
PLATFORM = (model.IDENTITY_NODE, model.IDENTITY_WORLD, model.IDENTITY_NORTH, model.IDENTITY_RESOLVER)

_endpoint = st.fixed_dictionaries(
    {
        "protocol": st.sampled_from(("http", "grpc", "tcp", "udp")),
        "visibility": st.sampled_from(("tenant", "public", "cell")),
        "callers": st.booleans(),
    }
)


@st.composite
def topologies(draw: st.DrawFn) -> Topology:
    """Two tenants, two environments, up to two projects; connections to whatever there is."""
    rules, identities = itertools.count(1000), itertools.count(256)
    numbers, listeners = itertools.count(1), itertools.count(20000)
    # Mostly neighbours, since edges between strangers are all alike.
    places = [(1, "production", "shop"), (1, "production", "billing")]
    places += [(1, "staging", "shop"), (2, "production", "shop")]
    chosen = draw(st.permutations(places))[: draw(st.sampled_from((4, 3, 2, 1)))]
    cells = []
    for tenant, environment, project in chosen:
        workloads = []
        for position in range(draw(st.integers(1, 2))):
            identity = next(identities)
            drawn = draw(st.lists(_endpoint, min_size=draw(st.sampled_from((1, 1, 0))), max_size=2))
            workloads.append(
                model.Workload(
                    identity=identity,
                    name=f"c{position}",
                    service4=f"10.65.1.{identity - 200}",
                    service6=f"fd63::2:{identity:x}",
                    endpoints=tuple(
                        _made(next(rules), place, identity, **values)  # type: ignore[arg-type]
                        for place, values in enumerate(drawn)
                    ),
                    replicas=tuple(
                        model.Replica(
                            f"r{identity}-{n}",
                            f"10.64.{identity - 200}.{n}",
                            f"fd63::1:{identity:x}:{n}",
                            n > 0,
                        )
                        for n in range(draw(st.integers(0, 2)))
                    ),
                )
            )
        number = next(numbers)
        cells.append(
            model.Cell(
                number=number,
                tenant=tenant,
                tenant_name=f"t{tenant}",
                project=project,
                environment=environment,
                rule=next(rules),
                gateway_identity=90000 + number,
                gateway4=f"10.64.255.{number}",
                gateway6=f"fd63::ff:{number}",
                strict=draw(st.booleans()),
                workloads=tuple(workloads),
            )
        )
    everyone = [w for cell in cells for w in cell.workloads]
    targets = [(w.identity, e.name) for w in everyone for e in w.endpoints]
    wanted = st.tuples(st.sampled_from(everyone), st.sampled_from(targets or [(0, "gone")]))
    found: dict[int, list[model.Connection]] = {w.identity: [] for w in everyone}
    for consumer, (provider, endpoint) in draw(
        st.lists(wanted, min_size=draw(st.sampled_from((6, 3, 0))), max_size=10)
    ):
        # `billing/api` and `billing/api.http` are two declarations of one edge.
        for _ in range(draw(st.integers(1, 2))):
            rule = next(rules)
            found[consumer.identity].append(
                model.Connection(rule, f"L{rule}", provider, endpoint, listener_port=next(listeners))
            )
    outside = st.tuples(st.sampled_from(everyone), st.sampled_from(CIDRS + HOSTS), st.sampled_from((80, 443)))
    for consumer, destination, port in draw(st.lists(outside, max_size=4)):
        rule = next(rules)
        if destination in HOSTS:
            external = model.External(80, "http", host=destination)
        else:
            external = model.External(port, draw(st.sampled_from(("tcp", "udp"))), cidr=destination)
        found[consumer.identity].append(
            model.Connection(rule, f"X{rule}", external=external, listener_port=next(listeners))
        )
    connected = tuple(
        replace(
            cell,
            workloads=tuple(replace(w, connections=tuple(found[w.identity])) for w in cell.workloads),
        )
        for cell in cells
    )
    return Topology(
        cells=connected,
        north4="10.64.0.2",
        north6="fd63::1:0:2",
        public_ports=(80, 8080),
        door4="10.65.0.2",
        door6="fd63::2:0:2",
        resolver4="10.64.0.3",
        resolver6="fd63::1:0:3",
        index4="10.64.0.4",
        index6="fd63::1:0:4",
        floor=FLOOR,
    )


def _made(
    rule: int, place: int, identity: int, *, protocol: str, visibility: str, callers: bool
) -> model.Endpoint:
    http = protocol in ("http", "grpc")
    public = visibility == "public" and http
    return model.Endpoint(
        rule=rule,
        name=f"e{place}",
        port=8000 + place,
        protocol=protocol,
        visibility=visibility if http or visibility != "public" else "tenant",
        hosts=(f"h{identity}-{place}.localhost",) if public else (),
        callers=callers and http,
    )


@dataclass(frozen=True, order=True)
class Way:
    """A call that gets through: by whom, to whose port, and through which gateway (0: none)."""

    consumer: int
    provider: int
    port: int
    protocol: int
    gateway: int = 0


def rights(boundary: Boundary, local: int, remote: int, port: int, protocol: int, direction: int) -> bool:
    """What the kernel would say: the entry or its wildcard allows, and no entry denies."""
    verdicts = {
        entry[4]
        for entry in boundary.identities[local].policy
        if entry[0] in (remote, 0)
        and entry[1] in (port, 0)
        and entry[2] == protocol
        and entry[3] == direction
    }
    return ALLOW in verdicts and DENY not in verdicts


def passes(boundary: Boundary, source: int, destination: int, port: int, protocol: int) -> bool:
    """Both ends have to agree."""
    return rights(boundary, source, destination, port, protocol, EGRESS) and rights(
        boundary, destination, source, port, protocol, INGRESS
    )


def ways(topology: Topology, boundary: Boundary) -> set[Way]:
    """Every call between workloads, direct and through gateways, that passes."""
    everyone = topology.by_identity()
    found = set()
    gateways = {cell.gateway_identity for cell in topology.cells}
    clusters = {cluster.name: cluster for cluster in boundary.clusters}
    listeners = {(item.address4, item.port): item for item in boundary.listeners}
    owners = {address: identity for address, (identity, _) in boundary.addresses.items()}
    own_ports = {(8000 + n, protocol) for n in range(2) for protocol in (TCP, model.UDP)}
    for consumer in everyone:
        for provider in everyone:
            for port, protocol in own_ports | {(9999, TCP)}:
                if passes(boundary, consumer, provider, port, protocol):
                    found.add(Way(consumer, provider, port, protocol))
        for service in boundary.services:
            if service.consumer != consumer:
                continue
            for kind, address, port in service.backends:
                gateway = owners.get(address, 0)
                listener = listeners.get((address, port))
                if kind != "gateway" or gateway not in gateways or listener is None:
                    continue
                if not passes(boundary, consumer, gateway, port, TCP):
                    continue
                for cell, workload in everyone.values():
                    for endpoint in workload.endpoints:
                        reached = clusters[listener.cluster].name == f"cell-{endpoint.rule}"
                        if reached and passes(boundary, gateway, workload.identity, endpoint.port, TCP):
                            assert cell.gateway_identity == gateway
                            found.add(Way(consumer, workload.identity, endpoint.port, TCP, gateway))
    return found


def normal(boundary: Boundary) -> dict[str, Any]:
    """The result without what has no order."""

    def backends(values: tuple[model.Backend, ...]) -> list[model.Backend]:
        return sorted(values)

    return {
        "addresses": boundary.addresses,
        "identities": {
            identity: (p.cell, sorted(set(p.policy)), sorted(set(p.external)))
            for identity, p in boundary.identities.items()
        },
        "services": sorted(
            (s.consumer, s.address, s.port, s.protocol, backends(s.backends)) for s in boundary.services
        ),
        "names": boundary.names,
        "external_names": {i: sorted(entries) for i, entries in boundary.external_names.items()},
        "routes": sorted((r.host, r.cluster) for r in boundary.routes),
        "clusters": sorted(
            (c.name, c.protocol, backends(c.backends), c.source4, c.source6) for c in boundary.clusters
        ),
        "listeners": sorted(
            (i.name, i.address4, i.address6, i.port, i.cluster, i.caller) for i in boundary.listeners
        ),
        "doors": sorted((d.name, d.address4, d.address6, d.port, d.hosts) for d in boundary.doors),
        "floor": boundary.floor,
    }


def changed(topology: Topology, identity: int, **values: Any) -> Topology:
    """The topology with one workload changed."""
    cells = tuple(
        replace(
            cell,
            workloads=tuple(replace(w, **values) if w.identity == identity else w for w in cell.workloads),
        )
        for cell in topology.cells
    )
    return replace(topology, cells=cells)


def number_of(endpoint: model.Endpoint) -> int:
    return PROTOCOLS[endpoint.protocol]
