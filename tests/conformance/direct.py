"""A world as the compiler's input, without the platform in between."""

from __future__ import annotations

from cells.boundary import model
from dataplane import addresses
from infra.config import Config
from tests.conformance.world import Thing, World

#: As much of the platform's floor as the world's addresses need. The platform's own is tested in
#: tests/dataplane/planes, and takes this one's place where the world is made of its objects.
FLOOR = tuple(
    (network, "FLOOR")
    for network in ("127.0.0.0/8", "169.254.0.0/16", "198.18.0.0/15", "fe80::/10", "fc00::/7", "::/127")
)


def topology(world: World, config: Config) -> model.Topology:
    """The world as the compiler's input."""
    north, resolver, index = (
        addresses.workload(config, number)
        for number in (addresses.GATEWAY_NORTH, addresses.RESOLVER, addresses.INDEX_PROXY)
    )
    door = addresses.service(config, addresses.PUBLIC_DOOR_SERVICE)
    own = (config.workloads4, config.services4, config.workloads6, config.services6)
    return model.Topology(
        cells=tuple(_cell(world, cell, config) for cell in world.places),
        north4=north.v4,
        north6=north.v6,
        north_port=addresses.NORTH_HTTP_PORT,
        public_ports=tuple(sorted({80, config.apps_port})),
        door4=door.v4,
        door6=door.v6,
        resolver4=resolver.v4,
        resolver6=resolver.v6,
        index4=index.v4,
        index6=index.v6,
        index_port=addresses.INDEX_PROXY_PORT,
        apps_domain=config.apps_domain,
        floor=FLOOR + tuple((str(network), "FLOOR") for network in own),
    )


def _cell(world: World, cell: tuple[str, str, str], config: Config) -> model.Cell:
    place = world.places[cell]
    gateway = addresses.cell_gateway(config, place.gateway)
    return model.Cell(
        number=place.number,
        tenant=place.tenant_number,
        tenant_name=cell[0],
        project=cell[1],
        environment=cell[2],
        rule=place.rule,
        gateway_identity=place.gateway_identity,
        gateway4=gateway.v4,
        gateway6=gateway.v6,
        strict=place.strict,
        audit=place.audit,
        workloads=tuple(_workload(thing, config) for thing in world.things if thing.cell == cell),
    )


def _workload(thing: Thing, config: Config) -> model.Workload:
    service = addresses.service(config, thing.service)
    replicas = []
    for copy in thing.copies:
        pair = addresses.workload(config, copy.index)
        replicas.append(model.Replica(copy.id, pair.v4, pair.v6, copy.serving))
    endpoints = [
        model.Endpoint(
            rule=port.rule,
            name=port.name,
            port=port.number,
            protocol=port.protocol,
            visibility=port.visibility,
            callers=port.callers,
            hosts=(thing.host(port),) if thing.host(port) else (),
        )
        for port in thing.ports
        if port.declared
    ]
    return model.Workload(
        identity=thing.identity,
        name=thing.name,
        service4=service.v4,
        service6=service.v6,
        endpoints=tuple(endpoints),
        connections=_connections(thing),
        replicas=tuple(replicas),
        ping=thing.ping,
    )


def _connections(thing: Thing) -> tuple[model.Connection, ...]:
    links = [
        model.Connection(
            rule=link.rule,
            name=f"L{link.rule}",
            provider=link.to,
            endpoint=link.port,
            listener_port=link.listener,
        )
        for link in thing.links
    ]
    exits = [
        model.Connection(
            rule=exit.rule,
            name=f"X{exit.rule}",
            external=model.External(exit.number, exit.protocol, exit.cidr, exit.host),
            listener_port=thing.door,
        )
        for exit in thing.exits
    ]
    return (*links, *exits)
