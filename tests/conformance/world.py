"""Random worlds of tenants, cells and declarations, reproducible from a seed.

A world says what people declare, in words of its own. ``direct.py`` makes the compiler's input of it,
``objects.py`` the platform's objects; numbers are the world's until the platform has given its own.
"""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass, field

TENANTS = ("acme", "globex")
ENVIRONMENTS = ("production", "staging")
PROJECTS = ("shop", "desk")

#: Addresses that play the world outside: documentation networks, two of them in no route of anybody.
OUTSIDE = ("192.0.2.10", "192.0.2.77", "198.51.100.7", "2001:db8::10", "2001:db8:5::7")
#: Outside too, but nobody's internet: the floor, whatever is declared.
FLOORED = ("198.18.77.10", "fd77:7::10")
#: The node's own, on the way to the outside.
NODE = ("192.0.2.1", "2001:db8::1")
OUTSIDE_PORTS = ((443, "tcp"), (443, "udp"), (5000, "tcp"))
CIDRS = (
    "192.0.2.0/24",
    "192.0.2.10/32",
    "198.51.100.0/25",
    "198.51.100.0/30",
    "0.0.0.0/0",
    "198.18.0.0/15",
    "2001:db8::/32",
    "2001:db8::10/128",
    "2001:db8::/64",
    "::/0",
    "fd77:7::/32",
)


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
    """A declared connection to a component's endpoint.

    ``short``: written without the endpoint's name. ``forged``: to a stranger, which nobody can write
    down; the compiler gets it all the same, and must not mind it.
    """

    to: int
    port: str
    rule: int = 0
    listener: int = 0
    short: bool = False
    forged: bool = False


@dataclass
class Exit:
    """A declared destination outside: a network, or the public host of the platform."""

    number: int
    protocol: str
    cidr: str = ""
    host: str = ""
    rule: int = 0


@dataclass
class Copy:
    """A replica. Others than ``serving`` ones run, but nobody is led there."""

    index: int
    serving: bool = True
    id: str = ""


@dataclass
class Thing:
    """A component of a cell."""

    identity: int
    name: str
    tenant: str
    environment: str
    project: str
    service: int
    copies: list[Copy]
    ports: list[Port] = field(default_factory=list)
    links: list[Link] = field(default_factory=list)
    exits: list[Exit] = field(default_factory=list)
    #: Port of its own listener for public hosts.
    door: int = 0
    #: Who may call it may ping it too.
    ping: bool = False

    @property
    def cell(self) -> tuple[str, str, str]:
        return self.tenant, self.project, self.environment

    def host(self, port: Port) -> str:
        """The public name of an endpoint; "" if it has none."""
        if not port.declared or port.visibility != "public":
            return ""
        stage = "" if self.environment == "production" else f"--{self.environment}"
        return f"{self.label(port)}{stage}.{self.tenant}.localhost"

    def label(self, port: Port) -> str:
        return f"{self.name}-{port.name}-{self.project}"


@dataclass
class Place:
    """A cell, with its numbers."""

    number: int
    tenant_number: int
    rule: int
    gateway_identity: int
    gateway: int
    strict: bool = False
    audit: bool = False


@dataclass
class World:
    seed: int
    things: list[Thing]
    places: dict[tuple[str, str, str], Place]

    def thing(self, identity: int) -> Thing:
        return next(thing for thing in self.things if thing.identity == identity)

    def place(self, thing: Thing) -> Place:
        return self.places[thing.cell]

    def owner(self, index: int) -> Thing:
        """Whose replica has this address index."""
        return next(thing for thing in self.things for copy in thing.copies if copy.index == index)


def generate(
    seed: int, tenants: int = 2, environments: int = 2, projects: int = 2, components: int = 3
) -> World:
    """A world in which every kind of declaration occurs, true and false ones alike."""
    dice = random.Random(seed)
    numbers, indexes, rules = itertools.count(256), itertools.count(9000), itertools.count(1000)
    things = [
        Thing(
            identity=next(numbers),
            name=f"c{component}",
            tenant=tenant,
            environment=environment,
            project=project,
            service=next(indexes) - 8000,
            # Some have two replicas; the second one of some doesn't serve yet.
            copies=[Copy(next(indexes))]
            + [Copy(next(indexes), serving=dice.random() < 0.5) for _ in range(dice.random() < 0.4)],
        )
        for tenant in TENANTS[:tenants]
        for environment in ENVIRONMENTS[:environments]
        for project in PROJECTS[:projects]
        for component in range(components)
    ]
    for thing in things:
        thing.ports = list(_ports(dice, rules))
        thing.ping = dice.random() < 0.5
        for copy in thing.copies:
            copy.id = f"r{copy.index}"
    _links(things, dice, rules)
    _exits(things, dice, rules)
    return World(seed, things, _places(things, dice))


def _ports(dice: random.Random, rules: itertools.count) -> list[Port]:
    found = []
    for name, protocol in zip(("main", "side"), dice.sample(["http", "tcp", "udp", "http", "grpc"], k=2), strict=True):  # fmt: skip
        spoken = protocol in ("http", "grpc")
        found.append(
            Port(
                name=name,
                number=8000 if name == "main" else 8001,
                protocol=protocol,
                # What is public speaks HTTP.
                visibility=dice.choice(["cell", "tenant", "public"] if spoken else ["cell", "tenant"]),
                callers=spoken and dice.random() < 0.3,
                rule=next(rules),
            )
        )
    taken = {(port.number, port.is_tcp) for port in found}
    for number, protocol in ((8000, "tcp"), (8000, "udp"), (8001, "tcp"), (8001, "udp"), (9999, "tcp")):
        if (number, protocol == "tcp") not in taken:
            found.append(Port(f"hidden{number}{protocol}", number, protocol, declared=False))
    return found


def _places(things: list[Thing], dice: random.Random) -> dict[tuple[str, str, str], Place]:
    cells = sorted({thing.cell for thing in things})
    strict = set(dice.sample(cells, k=len(cells) // 2))
    # Audit is a project's, whatever the environment.
    projects = sorted({cell[:2] for cell in cells})
    audit = set(dice.sample(projects, k=max(1, len(projects) // 4)))
    return {
        cell: Place(
            number=number,
            tenant_number=TENANTS.index(cell[0]) + 1,
            rule=500 + number,
            gateway_identity=100000 + number,
            gateway=number,
            strict=cell in strict,
            audit=cell[:2] in audit,
        )
        for number, cell in enumerate(cells, start=1)
    }


def _links(things: list[Thing], dice: random.Random, rules: itertools.count) -> None:
    listeners = itertools.count(20000)
    for thing in things:
        near = [t for t in things if t is not thing and not strangers(t, thing)]
        far = [t for t in things if strangers(t, thing)]
        for other in [*dice.sample(near, k=min(3, len(near))), *dice.sample(far, k=min(2, len(far)))]:
            port = dice.choice([p for p in other.ports if p.declared])
            link = Link(
                other.identity, port.name, next(rules), next(listeners), forged=strangers(thing, other)
            )
            thing.links.append(link)
            if port is other.ports[0] and dice.random() < 0.3:
                twin = Link(other.identity, port.name, next(rules), next(listeners), True, link.forged)
                thing.links.append(twin)


def _exits(things: list[Thing], dice: random.Random, rules: itertools.count) -> None:
    hosts = sorted(host for thing in things for port in thing.ports if (host := thing.host(port)))
    doors = itertools.count(30000)
    for thing in things:
        for cidr in dice.sample(CIDRS, k=dice.choice([0, 1, 3])):
            number, protocol = dice.choice((*OUTSIDE_PORTS, (0, "icmp")))
            thing.exits.append(Exit(number, protocol, cidr=cidr, rule=next(rules)))
        thing.door = next(doors)
        for host in dice.sample(hosts, k=min(len(hosts), dice.choice([0, 0, 1, 2]))):
            thing.exits.append(Exit(80, "http", host=host, rule=next(rules)))


def strangers(one: Thing, other: Thing) -> bool:
    """Different tenants, or stages of a pipeline that must not mix."""
    return one.tenant != other.tenant or one.environment != other.environment
