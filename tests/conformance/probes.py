"""What is asked of a world: every pair of components by every way, and whatever lies around them."""

from __future__ import annotations

import ipaddress
import random
from collections.abc import Iterator
from dataclasses import dataclass

from cells.boundary.model import ICMP, ICMPV6, TCP, UDP
from tests.conformance.world import FLOORED, NODE, OUTSIDE, OUTSIDE_PORTS, Copy, Port, Thing, World

#: To a component: by the name within its cell or with the project's, the service's address, a replica's own.
SHORT, NAME, SERVICE, CONTAINER, PING = "short", "name", "service", "container", "ping"
#: To somebody's listener at a gateway; to an address outside; to a public host of the platform, by the
#: caller's own door or by the gateway's common listener; from the internet to a public host.
LISTENER, EXTERNAL, DOOR, NORTH, PUBLIC = "listener", "external", "door", "north", "public"

#: Callers that are no replicas: a stranger on the internet, a process on the node itself.
STRANGER, NODE_ITSELF = -1, -2


@dataclass(frozen=True)
class Probe:
    """One call. ``caller`` and ``copy`` are address indexes of replicas, ``callee`` an identity.

    ``where`` is an address outside or a public host. ``hooked`` False: the caller's socket hooks don't know
    it, as for raw senders.
    """

    caller: int
    way: str
    number: int
    protocol: int
    family: int
    callee: int = 0
    copy: int = 0
    where: str = ""
    hooked: bool = True


def number_of(port: Port) -> int:
    return TCP if port.is_tcp else UDP


def probes_of(world: World) -> list[Probe]:
    """Reproducible for a seed. A tenth is without help of the socket hooks."""
    dice = random.Random(world.seed)
    found = (
        *_between(world, dice),
        *_listeners(world, dice),
        *_outside(world, dice),
        *_hosts(world, dice),
        *_from_outside(world, dice),
    )
    return list(dict.fromkeys(found))


def _hooked(dice: random.Random) -> bool:
    return dice.random() > 0.1


def _copy(thing: Thing, dice: random.Random) -> Copy:
    return dice.choice(thing.copies)


def _between(world: World, dice: random.Random) -> Iterator[Probe]:
    for caller in world.things:
        for callee in world.things:
            for port in callee.ports:
                ways = [NAME, SERVICE, CONTAINER]
                if not port.declared:
                    ways = [
                        way for way, share in ((SERVICE, 0.25), (CONTAINER, 0.5)) if dice.random() < share
                    ]
                elif dice.random() < 0.25:
                    ways.append(SHORT)
                for way in ways:
                    for family in (4, 6):
                        yield Probe(
                            _copy(caller, dice).index,
                            way,
                            port.number,
                            number_of(port),
                            family,
                            callee=callee.identity,
                            copy=_copy(callee, dice).index if way == CONTAINER else 0,
                            hooked=_hooked(dice),
                        )
            if dice.random() < 0.5:
                for family, protocol in ((4, ICMP), (6, ICMPV6)):
                    target = _copy(callee, dice).index
                    yield Probe(
                        _copy(caller, dice).index,
                        PING,
                        0,
                        protocol,
                        family,
                        callee=callee.identity,
                        copy=target,
                        hooked=_hooked(dice),
                    )


def _listeners(world: World, dice: random.Random) -> Iterator[Probe]:
    """One's own and others' listeners at the gateways of the providers' cells."""
    known = [(thing, link) for thing in world.things for link in thing.links]
    for caller in world.things:
        own = [pair for pair in known if pair[0] is caller]
        for _, link in [*own, *dice.sample(known, k=min(8, len(known)))]:
            family = dice.choice((4, 6))
            yield Probe(_copy(caller, dice).index, LISTENER, link.listener, TCP, family, callee=link.to)


def _outside(world: World, dice: random.Random) -> Iterator[Probe]:
    for caller in world.things:
        for where in (*OUTSIDE, *FLOORED, *NODE):
            family = ipaddress.ip_address(where).version
            for number, word in OUTSIDE_PORTS:
                protocol = TCP if word == "tcp" else UDP
                yield Probe(
                    _copy(caller, dice).index,
                    EXTERNAL,
                    number,
                    protocol,
                    family,
                    where=where,
                    hooked=_hooked(dice),
                )
            if dice.random() < 0.3:
                protocol = ICMP if family == 4 else ICMPV6
                yield Probe(_copy(caller, dice).index, PING, 0, protocol, family, where=where)


def hosts(world: World) -> dict[str, tuple[Thing, Port]]:
    """Public names and whose they are."""
    return {
        thing.host(port): (thing, port) for thing in world.things for port in thing.ports if thing.host(port)
    }


def _hosts(world: World, dice: random.Random) -> Iterator[Probe]:
    """Public hosts as a component reaches them: by its door, and by the listener that is the internet's."""
    for caller in world.things:
        for host, (callee, _) in hosts(world).items():
            family = dice.choice((4, 6))
            copy = _copy(caller, dice).index
            yield Probe(copy, DOOR, 80, TCP, family, callee=callee.identity, where=host)
            if dice.random() < 0.2:
                yield Probe(copy, NORTH, 0, TCP, family, callee=callee.identity, where=host)


def _from_outside(world: World, dice: random.Random) -> Iterator[Probe]:
    for host, (callee, _) in hosts(world).items():
        for family in (4, 6):
            yield Probe(STRANGER, PUBLIC, 0, TCP, family, callee=callee.identity, where=host)
    for caller in (STRANGER, NODE_ITSELF):
        for callee in world.things:
            for port in callee.ports:
                copy = _copy(callee, dice).index
                yield Probe(
                    caller,
                    CONTAINER,
                    port.number,
                    number_of(port),
                    dice.choice((4, 6)),
                    callee=callee.identity,
                    copy=copy,
                )
