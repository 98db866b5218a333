"""Random worlds of tenants, cells and declarations, reproducible from a seed."""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass, field

from cells.boundary import model
from infra.config import Config


@dataclass
class Port:
    """A declared endpoint, or (``declared`` False) a process that listens without declaring it."""

    name: str
    number: int
    protocol: str
    visibility: str = "cell"
    callers: bool = False
    declared: bool = True
    rule: int = 0

    @property
    def is_tcp(self) -> bool:
        return self.protocol != "udp"


@dataclass
class Link:
    """A declared connection to a component's endpoint."""

    to: int
    port: str
    rule: int = 0
    listener: int = 0


@dataclass
class Thing:
    """A component of a cell."""

    identity: int
    name: str
    tenant: str
    environment: str
    project: str
    ports: list[Port] = field(default_factory=list)
    links: list[Link] = field(default_factory=list)

    @property
    def cell(self) -> tuple[str, str, str]:
        return self.tenant, self.project, self.environment


@dataclass
class World:
    """``strict`` holds the cells in which only declared connections pass."""

    seed: int
    things: list[Thing]
    strict: set[tuple[str, str, str]]

    def thing(self, identity: int) -> Thing:
        return next(thing for thing in self.things if thing.identity == identity)


def generate(
    seed: int, tenants: int = 2, environments: int = 2, projects: int = 2, components: int = 3
) -> World:
    """A world in which every kind of declaration occurs, true and false ones alike."""
    dice = random.Random(seed)
    numbers = itertools.count(256)
    rules = itertools.count(1000)
    things = [
        Thing(next(numbers), f"c{component}", f"t{tenant}", f"e{environment}", f"p{project}")
        for tenant in range(tenants)
        for environment in range(environments)
        for project in range(projects)
        for component in range(components)
    ]
    for thing in things:
        for name, protocol in zip(
            ("main", "side"), dice.sample(["http", "tcp", "udp", "http"], k=2), strict=True
        ):
            thing.ports.append(
                Port(
                    name=name,
                    number=8000 if name == "main" else 8001,
                    protocol=protocol,
                    visibility=dice.choice(["cell", "tenant", "public"]),
                    callers=protocol == "http" and dice.random() < 0.3,
                    rule=next(rules),
                )
            )
        for number, protocol in ((8000, "tcp"), (8000, "udp"), (8001, "tcp"), (8001, "udp"), (9999, "tcp")):
            taken = {(p.number, p.is_tcp) for p in thing.ports}
            if (number, protocol == "tcp") not in taken:
                thing.ports.append(Port(f"hidden{number}{protocol}", number, protocol, declared=False))
    listeners = itertools.count(20000)
    for thing in things:
        # Also to where a connection must not help: other tenants and environments.
        for other in dice.sample(things, k=4):
            port = dice.choice([p for p in other.ports if p.declared])
            if all((link.to, link.port) != (other.identity, port.name) for link in thing.links):
                thing.links.append(Link(other.identity, port.name, next(rules), next(listeners)))
    cells = sorted({thing.cell for thing in things})
    return World(seed, things, set(dice.sample(cells, k=len(cells) // 2)))


def index_of(thing: Thing) -> int:
    """Address index of a thing's only replica."""
    return 1024 + thing.identity - 256


def topology(world: World, config: Config) -> model.Topology:
    """The world as the compiler's input."""
    cells = []
    for number, cell in enumerate(sorted({thing.cell for thing in world.things}), start=1):
        gateway = 512 + number
        cells.append(
            model.Cell(
                number=number,
                tenant=int(cell[0][1:]) + 1,
                tenant_name=cell[0],
                project=cell[1],
                environment=cell[2],
                rule=500 + number,
                gateway_identity=100000 + number,
                gateway4=str(config.workloads4[gateway]),
                gateway6=str(config.workloads6[gateway]),
                strict=cell in world.strict,
                workloads=tuple(_workload(thing, config) for thing in world.things if thing.cell == cell),
            )
        )
    return model.Topology(
        cells=tuple(cells),
        north4=str(config.workloads4[2]),
        north6=str(config.workloads6[2]),
        resolver4=str(config.workloads4[3]),
        resolver6=str(config.workloads6[3]),
        door4=str(config.services4[2]),
        door6=str(config.services6[2]),
        floor=(("169.254.0.0/16", "FLOOR"),),
    )


def _workload(thing: Thing, config: Config) -> model.Workload:
    index = index_of(thing)
    return model.Workload(
        identity=thing.identity,
        name=thing.name,
        service4=str(config.services4[index]),
        service6=str(config.services6[index]),
        endpoints=tuple(
            model.Endpoint(
                rule=port.rule,
                name=port.name,
                port=port.number,
                protocol=port.protocol,
                visibility=port.visibility,
                callers=port.callers,
                hosts=(f"{thing.name}-{port.name}.{thing.project}.{thing.tenant}.{thing.environment}",)
                if port.visibility == "public" and port.is_tcp
                else (),
            )
            for port in thing.ports
            if port.declared
        ),
        connections=tuple(
            model.Connection(
                rule=link.rule,
                name=f"L{link.rule}",
                provider=link.to,
                endpoint=link.port,
                listener_port=link.listener,
            )
            for link in thing.links
        ),
        replicas=(
            model.Replica(
                f"r{thing.identity}", str(config.workloads4[index]), str(config.workloads6[index]), True
            ),
        ),
    )
