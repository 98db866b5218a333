"""Topology in, tables out.

Entries always come in pairs: what one identity may send, the other may receive. A peer that isn't
named has no entry, and no entry means no.
"""

from __future__ import annotations

from collections.abc import Collection

from cells.boundary import audit, names
from cells.boundary.around import Around
from cells.boundary.edges import Edge, decide, floor_reason
from cells.boundary.model import (
    ALLOW,
    AUDIT,
    DENY,
    EGRESS,
    ICMP,
    ICMPV6,
    IDENTITY_BUILDS,
    IDENTITY_INDEX,
    IDENTITY_NODE,
    IDENTITY_NORTH,
    IDENTITY_RESOLVER,
    IDENTITY_WORLD,
    INGRESS,
    RULE_BUILD,
    RULE_NORTH,
    RULE_RESOLVER,
    TCP,
    UDP,
    UNLIMITED,
    Backend,
    Boundary,
    Cell,
    Cluster,
    Connection,
    Door,
    Endpoint,
    IdentityPolicy,
    Listener,
    Route,
    Service,
    Topology,
    Workload,
)

__all__ = ["ICMP", "ICMPV6", "compile_cell", "compile_platform", "compile_topology"]


def compile_topology(topology: Topology) -> Boundary:
    """Compile all cells of a plane: the union of its parts. Linear in cells, quadratic only inside a cell."""
    around, whole = Around(topology.cells), compile_platform(topology)
    for cell in topology.cells:
        whole.add(compile_cell(topology, cell, around))
    return whole


def compile_platform(topology: Topology) -> Boundary:
    """The part of a plane that is no cell's."""
    boundary = Boundary(floor=topology.floor)
    _platform(topology, boundary)
    return boundary


def compile_cell(topology: Topology, cell: Cell, around: Around) -> Boundary:
    """A cell's part: what its own identities may do, the services and names that they see, its gateway.

    Parts of different cells hold nothing in common, but that each adds to the north gateway's rights.
    ``topology`` gives the platform's addresses; of ``around`` only the cell's neighbours are looked at.
    """
    boundary = Boundary()
    boundary.identities[cell.gateway_identity] = IdentityPolicy(cell.number)
    boundary.addresses[cell.gateway4] = (cell.gateway_identity, "gateway")
    boundary.addresses[cell.gateway6] = (cell.gateway_identity, "gateway")
    for workload in cell.workloads:
        boundary.identities[workload.identity] = IdentityPolicy(cell.number)
    for workload in cell.workloads:
        _workload(topology, boundary, cell, workload)
        _inside(boundary, cell, workload)
        _door(topology, boundary, workload)
        _outgoing(topology, boundary, cell, workload, around)
        for other, consumer in around.consumers(workload.identity):
            if other.number != cell.number:
                _declared(boundary, other, consumer, cell, workload)
    _audited(boundary, cell, around)
    return boundary


def _outgoing(topology: Topology, boundary: Boundary, cell: Cell, consumer: Workload, around: Around) -> None:
    """What a workload declares beyond its cell."""
    providers: dict[int, None] = {}
    for connection in consumer.connections:
        if connection.external is not None:
            _external(topology, boundary, consumer, connection)
        else:
            providers[connection.provider] = None
    for identity in providers:
        found = around.workload(identity)
        if found is not None and found[0].number != cell.number:
            _declared(boundary, cell, consumer, *found)


def _declared(
    boundary: Boundary, consumer_cell: Cell, consumer: Workload, provider_cell: Cell, provider: Workload
) -> None:
    """Edges between two workloads of different cells: each endpoint that a connection names, once."""
    # An edge that is declared twice (`api` and `api.http`) is one edge with one listener.
    named = {c.endpoint for c in consumer.connections if c.provider == provider.identity}
    for endpoint in provider.endpoints:
        if endpoint.name in named:
            _edge(boundary, consumer_cell, consumer, provider_cell, provider, endpoint)


def _platform(topology: Topology, boundary: Boundary) -> None:
    """The platform's own parts: north gateway, resolver, builds and their index."""
    for identity in (IDENTITY_NORTH, IDENTITY_RESOLVER, IDENTITY_INDEX, *IDENTITY_BUILDS):
        boundary.identities[identity] = IdentityPolicy(0)
    for address, identity, part in (
        (topology.north4, IDENTITY_NORTH, "gateway"),
        (topology.north6, IDENTITY_NORTH, "gateway"),
        (topology.resolver4, IDENTITY_RESOLVER, "resolver"),
        (topology.resolver6, IDENTITY_RESOLVER, "resolver"),
        (topology.index4, IDENTITY_INDEX, "index"),
        (topology.index6, IDENTITY_INDEX, "index"),
    ):
        if address:
            boundary.addresses[address] = (identity, part)
    for remote in (IDENTITY_WORLD, IDENTITY_NODE):
        _put(boundary, IDENTITY_NORTH, remote, topology.north_port, TCP, INGRESS, RULE_NORTH)
    for protocol in (UDP, TCP):
        # Anybody's workload may ask, nobody from outside the platform: deny beats allow.
        _put(boundary, IDENTITY_RESOLVER, 0, 53, protocol, INGRESS, RULE_RESOLVER)
        for remote in (IDENTITY_WORLD, IDENTITY_NODE, *IDENTITY_BUILDS):
            entry = (remote, 53, protocol, INGRESS, DENY, RULE_RESOLVER)
            boundary.identities[IDENTITY_RESOLVER].policy.append(entry)
    for build in IDENTITY_BUILDS:
        _pair(boundary, build, IDENTITY_INDEX, topology.index_port, TCP, RULE_BUILD)


def _workload(topology: Topology, boundary: Boundary, cell: Cell, workload: Workload) -> None:
    """What every workload has: addresses, limits, resolver, its services, public routes."""
    if workload.limits != UNLIMITED:
        boundary.limits[workload.identity] = workload.limits
    for replica in workload.replicas:
        boundary.addresses[replica.v4] = (workload.identity, replica.id)
        boundary.addresses[replica.v6] = (workload.identity, replica.id)
    for protocol in (UDP, TCP):
        _put(boundary, workload.identity, IDENTITY_RESOLVER, 53, protocol, EGRESS, RULE_RESOLVER)
    _name(boundary, workload.identity, cell, workload)
    for endpoint in workload.endpoints:
        backends4, backends6 = _backends(workload, endpoint)
        weights = _weights(workload)
        for address, backends in ((workload.service4, backends4), (workload.service6, backends6)):
            boundary.services.append(
                Service(
                    0,
                    address,
                    endpoint.port,
                    endpoint.number,
                    backends,
                    endpoint.balance,
                    endpoint.affinity,
                    weights,
                )
            )
        if endpoint.visibility == "public":
            # Before it has a host and after it lost one too: the gateway moves routes, never backends.
            _pair(boundary, IDENTITY_NORTH, workload.identity, endpoint.port, endpoint.number, endpoint.rule)
            cluster = f"north-{endpoint.rule}"
            boundary.clusters.append(_cluster(cluster, endpoint, workload, topology.north4, topology.north6))
            boundary.routes.extend(Route(host, cluster) for host in endpoint.hosts)


def _inside(boundary: Boundary, cell: Cell, provider: Workload) -> None:
    """Edges between the workloads of one cell, to themselves included."""
    for endpoint in provider.endpoints:
        for consumer in cell.workloads:
            _edge(boundary, cell, consumer, cell, provider, endpoint)


def _edge(
    boundary: Boundary,
    consumer_cell: Cell,
    consumer: Workload,
    provider_cell: Cell,
    provider: Workload,
    endpoint: Endpoint,
) -> None:
    """Tables of one edge, if it is allowed."""
    edge = decide(consumer_cell, consumer, provider_cell, provider, endpoint)
    if not edge.allowed:
        return
    _name(
        boundary,
        consumer.identity,
        provider_cell,
        provider,
        short=consumer_cell.number == provider_cell.number,
    )
    if provider.ping:
        for protocol in (ICMP, ICMPV6):
            _pair(boundary, consumer.identity, provider.identity, 0, protocol, provider.endpoints[0].rule)
    if edge.connection is None:
        _pair(boundary, consumer.identity, provider.identity, endpoint.port, endpoint.number, edge.rule)
        return
    # The listener is on the provider's cell gateway, whose identity reaches this cell alone.
    gateway, port = provider_cell.gateway_identity, edge.connection.listener_port
    _pair(boundary, consumer.identity, gateway, port, TCP, edge.rule)
    _pair(boundary, gateway, provider.identity, endpoint.port, endpoint.number, endpoint.rule)
    if provider.identity in boundary.identities:
        _listener(boundary, consumer_cell, consumer, provider_cell, provider, endpoint, edge)
    if consumer.identity in boundary.identities:
        for address, target in (
            (provider.service4, provider_cell.gateway4),
            (provider.service6, provider_cell.gateway6),
        ):
            boundary.services.append(
                Service(consumer.identity, address, endpoint.port, TCP, (("gateway", target, port),))
            )


def _listener(
    boundary: Boundary,
    consumer_cell: Cell,
    consumer: Workload,
    provider_cell: Cell,
    provider: Workload,
    endpoint: Endpoint,
    edge: Edge,
) -> None:
    """The provider's side of an edge that passes its cell's gateway."""
    assert edge.connection is not None
    cluster = f"cell-{endpoint.rule}"
    if all(known.name != cluster for known in boundary.clusters):
        boundary.clusters.append(
            _cluster(cluster, endpoint, provider, provider_cell.gateway4, provider_cell.gateway6)
        )
    # Only what accepts nothing but its gateway gets the name: elsewhere anybody beside it could forge one.
    caller = (
        f"{consumer_cell.tenant_name}/{consumer_cell.project}/{consumer.name}" if endpoint.callers else ""
    )
    boundary.listeners.append(
        Listener(
            f"connection-{edge.rule}",
            provider_cell.gateway4,
            provider_cell.gateway6,
            edge.connection.listener_port,
            cluster,
            caller,
        )
    )


def _external(topology: Topology, boundary: Boundary, consumer: Workload, connection: Connection) -> None:
    """Egress to networks and names outside."""
    external = connection.external
    assert external is not None
    if external.cidr and not floor_reason(topology.floor, external.cidr):
        boundary.identities[consumer.identity].external.append(
            (external.cidr, external.port, external.number, ALLOW, connection.rule)
        )
    if external.name:
        boundary.external_names.setdefault(consumer.identity, []).append(names.entry(connection))


def _door(topology: Topology, boundary: Boundary, consumer: Workload) -> None:
    """The way to public hosts of the platform: a listener of the consumer's own that knows those alone.

    Through the north gateway's common one it would reach every public host by naming it.
    """
    declared = sorted(
        (c for c in consumer.connections if c.external and c.external.public), key=lambda c: c.rule
    )
    if not declared:
        return
    first = declared[0]
    names = boundary.names.setdefault(consumer.identity, {})
    hosts = tuple(sorted({c.external.host for c in declared if c.external}))
    names.update(dict.fromkeys(hosts, (topology.door4, topology.door6)))
    port = first.listener_port
    _pair(boundary, consumer.identity, IDENTITY_NORTH, port, TCP, first.rule)
    boundary.doors.append(Door(f"door-{first.rule}", topology.north4, topology.north6, port, hosts))
    for address, target in ((topology.door4, topology.north4), (topology.door6, topology.north6)):
        for public in topology.public_ports:
            backends = (("gateway", target, port),)
            boundary.services.append(Service(consumer.identity, address, public, TCP, backends))


def _audited(boundary: Boundary, cell: Cell, around: Around) -> None:
    """What cells in audit may do for the record, with the names that lead there: both ends' own parts."""
    if cell.audit:
        for workload in cell.workloads:
            boundary.identities[workload.identity].external.extend(audit.OUTSIDE)
            boundary.external_names.setdefault(workload.identity, []).append(names.ANY_NAME)
        _opened(boundary, cell, list(around.reachable(cell)))
    if audit.reachable(cell):
        for other in around.audited(cell):
            if other.number != cell.number:
                _opened(boundary, other, [cell])


def _opened(boundary: Boundary, cell: Cell, neighbours: Collection[Cell]) -> None:
    for entry in audit.opened(cell, neighbours):
        consumer, provider = entry.consumer.identity, entry.provider.identity
        _pair(boundary, consumer, provider, entry.port, entry.protocol, entry.rule, entry.verdict)
        if entry.verdict == AUDIT:
            _name(boundary, consumer, entry.cell, entry.provider, short=entry.cell.number == cell.number)


def _backends(workload: Workload, endpoint: Endpoint) -> tuple[tuple[Backend, ...], tuple[Backend, ...]]:
    """Serving replicas, by family."""
    serving = [replica for replica in workload.replicas if replica.serving]
    return (
        tuple((replica.id, replica.v4, endpoint.port) for replica in serving),
        tuple((replica.id, replica.v6, endpoint.port) for replica in serving),
    )


def _weights(workload: Workload) -> tuple[int, ...]:
    """Of what ``_backends`` gives, in its order."""
    return tuple(replica.weight for replica in workload.replicas if replica.serving)


def _cluster(name: str, endpoint: Endpoint, provider: Workload, source4: str, source6: str) -> Cluster:
    """The provider as a gateway dials it."""
    sticky = endpoint.balance == "consistent" or endpoint.affinity > 0
    backends, _ = _backends(provider, endpoint)
    return Cluster(name, endpoint.protocol, backends, source4, source6, sticky, _weights(provider))


def _name(boundary: Boundary, asker: int, cell: Cell, workload: Workload, short: bool = True) -> None:
    """Let ``asker`` resolve the workload: by its component's name inside the cell, with project always."""
    if not workload.endpoints or asker not in boundary.identities:
        return
    addresses = (workload.service4, workload.service6)
    names = boundary.names.setdefault(asker, {})
    if short:
        names[workload.name] = addresses
    names[f"{workload.name}.{cell.project}"] = addresses


def _pair(
    boundary: Boundary,
    consumer: int,
    provider: int,
    port: int,
    protocol: int,
    rule: int,
    verdict: int = ALLOW,
) -> None:
    """One edge at both ends: egress of the consumer and ingress of the provider."""
    _put(boundary, consumer, provider, port, protocol, EGRESS, rule, verdict)
    _put(boundary, provider, consumer, port, protocol, INGRESS, rule, verdict)


def _put(
    boundary: Boundary,
    local: int,
    remote: int,
    port: int,
    protocol: int,
    direction: int,
    rule: int,
    verdict: int = ALLOW,
) -> None:
    if local == IDENTITY_NORTH:
        boundary.identities.setdefault(local, IdentityPolicy(0))
    elif local not in boundary.identities:
        return  # the other end's part has it
    entries = boundary.identities[local].policy
    entry = (remote, port, protocol, direction, verdict, rule)
    if not entries or entries[-1] != entry:
        entries.append(entry)
