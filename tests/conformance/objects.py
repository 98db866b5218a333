"""A world as the platform's objects: tenants, projects, pushes and releases, by its own actions.

The numbers that the platform gives out are taken over into the world, so that the same world can be
compiled without the platform and compared.
"""

from __future__ import annotations

from typing import Any

import yaml

from delivery.models import Replica
from projects import actions as projects
from projects.models import Cell, Workload
from tests import factories
from tests.conformance.world import Place, Thing, World


def build(rows: factories.World, world: World) -> None:
    """Everything of the world, in the database. What nobody can write down (forged links) is taken out."""
    for thing in world.things:
        thing.links = [link for link in thing.links if not link.forged]
    made = {key: rows.project(slug=key[1], tenant=key[0]) for key in sorted({c[:2] for c in world.places})}
    for cell, place in world.places.items():
        row = rows.cell(made[cell[:2]], cell[2], cell[0])
        things = [thing for thing in world.things if thing.cell == cell]
        rows.deploy(row, declaration(world, things, place))
    for key, project in made.items():
        if any(place.audit for cell, place in world.places.items() if cell[:2] == key):
            projects.set_audit(acting_user=rows.actor("owner", key[0]), project=project, audited=True)
    for cell, place in world.places.items():
        row = rows.cell(made[cell[:2]], cell[2], cell[0])
        _adopt_place(place, row)
        for thing in (thing for thing in world.things if thing.cell == cell):
            _adopt(world, thing, Workload.objects.get(cell=row, component__name=thing.name))


def declaration(world: World, things: list[Thing], place: Place) -> str:
    """The cell's cytoplane.yaml."""
    components: dict[str, Any] = {}
    for thing in things:
        endpoints: dict[str, Any] = {}
        for port in (port for port in thing.ports if port.declared):
            endpoints[port.name] = {"port": port.number, "protocol": port.protocol, "visibility": port.visibility}  # fmt: skip
            if port.callers:
                endpoints[port.name]["callers"] = True
            if thing.host(port):
                endpoints[port.name]["host"] = thing.label(port)
        connections: list[dict[str, Any]] = []
        for number, link in enumerate(thing.links):
            connections.append({"to": _target(world, link.to, link.port, link.short), "as": f"L{number}"})
        for number, exit in enumerate(thing.exits):
            outside: dict[str, Any] = {"cidr": exit.cidr} if exit.cidr else {"host": exit.host}
            outside["protocol"] = exit.protocol
            if exit.number:
                outside["port"] = exit.number
            connections.append({"external": outside, "as": f"X{number}"})
        components[thing.name] = {
            "kind": "service",
            "command": "serve",
            "replicas": len(thing.copies),
            "ping": thing.ping,
            "endpoints": endpoints,
            "connections": connections,
        }
    return yaml.safe_dump({"strict": place.strict, "components": components}, sort_keys=False)


def _target(world: World, identity: int, port: str, short: bool) -> str:
    thing = world.thing(identity)
    name = f"{thing.project}/{thing.name}"
    return name if short else f"{name}.{port}"


def _adopt_place(place: Place, row: Cell) -> None:
    place.number, place.rule = row.number, row.rule
    place.tenant_number = row.project.tenant_id
    place.gateway_identity, place.gateway = row.gateway_identity, row.gateway_index


def _adopt(world: World, thing: Thing, row: Workload) -> None:
    """The platform's numbers of a component and of what it declares."""
    rules = {endpoint.name: endpoint.rule for endpoint in row.endpoints.all()}
    for port in (port for port in thing.ports if port.declared):
        port.rule = rules[port.name]
    connections = {connection.key: connection for connection in row.connections.all()}
    for link in thing.links:
        known = connections[_target(world, link.to, link.port, link.short)]
        link.rule, link.listener = known.rule, known.listener_port
    for exit in thing.exits:
        known = connections[f"external:{exit.cidr or exit.host}:{exit.number}/{exit.protocol}"]
        exit.rule = known.rule
    thing.door = row.door_port or 0
    thing.service = row.service_index
    replicas = list(Replica.objects.filter(workload=row).order_by("number"))
    assert len(replicas) == len(thing.copies)
    for copy, replica in zip(thing.copies, replicas, strict=True):
        copy.index, copy.id = replica.address_index, f"r{replica.pk}"
        if not copy.serving:  # as one is that has just come
            Replica.objects.filter(pk=replica.pk).update(wanted=Replica.Wanted.RUN)


def renumber(world: World) -> None:
    """Let links name providers by the identities that the platform gave. Call once every cell is there."""
    given = {
        thing.identity: Workload.objects.get(
            cell__project__tenant__slug=thing.tenant,
            cell__project__slug=thing.project,
            cell__environment__name=thing.environment,
            component__name=thing.name,
        ).identity
        for thing in world.things
    }
    for thing in world.things:
        for link in thing.links:
            link.to = given[link.to]
        thing.identity = given[thing.identity]
