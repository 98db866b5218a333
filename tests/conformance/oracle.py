"""The rules of the cell boundary in other words. It never calls the compiler.

A call is described by what a person sees: who calls whom, on which port, and by which way.
"""

from __future__ import annotations

import ipaddress

from tests.conformance.probes import (
    CONTAINER,
    DOOR,
    EXTERNAL,
    LISTENER,
    NAME,
    NODE_ITSELF,
    PING,
    PUBLIC,
    SERVICE,
    SHORT,
    STRANGER,
    Probe,
    hosts,
    number_of,
)
from tests.conformance.world import OUTSIDE, Port, Thing, World, strangers

#: How a call ends: nothing comes back; it passes; it passes and is reported, since the caller's project is
#: in audit.
NO, YES, REPORTED = "no", "yes", "reported"


def outcome(world: World, probe: Probe) -> str:
    """Whether the call gets an answer, and whether somebody is told of it."""
    return _verdict(world, probe)[0]


def expected(world: World, probe: Probe) -> set[str]:
    """Who may answer: replicas by their index, ``outside`` or ``pong``; ``""`` where nobody may."""
    verdict, who = _verdict(world, probe)
    return who if verdict != NO else {""}


def _verdict(world: World, probe: Probe) -> tuple[str, set[str]]:
    if probe.way == PUBLIC:
        return YES, serving(hosts(world)[probe.where][0])
    if probe.caller in (STRANGER, NODE_ITSELF):
        return NO, set()  # by no other way
    caller = world.owner(probe.caller)
    if probe.way == PING:
        return (YES if _echoes(world, caller, probe) else NO), {"pong"}
    if probe.way == EXTERNAL:
        return _leaving(world, caller, probe), {"outside"}
    if probe.way == DOOR:
        declared = any(exit.host == probe.where for exit in caller.exits)
        return (YES if declared else NO), serving(hosts(world)[probe.where][0])
    if probe.way == LISTENER:
        return _listener(world, caller, probe)
    if not probe.callee or probe.way not in (SHORT, NAME, SERVICE, CONTAINER):
        return NO, set()  # what is the internet's listener is nobody else's
    callee = world.thing(probe.callee)
    if probe.way == CONTAINER:
        if probe.copy == probe.caller:
            return YES, {str(probe.copy)}
        return answers(world, caller, callee, _port(callee, probe), CONTAINER), {str(probe.copy)}
    if not probe.hooked:
        return NO, set()  # a service address on the wire means nothing
    if probe.way == SERVICE:
        return answers(world, caller, callee, _port(callee, probe), SERVICE), serving(callee)
    namesake = meant(world, caller, callee, probe.way)
    if namesake is None:
        return NO, set()
    return answers(world, caller, namesake, _port(namesake, probe), SERVICE), serving(namesake)


def serving(thing: Thing) -> set[str]:
    return {str(copy.index) for copy in thing.copies if copy.serving}


def _port(thing: Thing, probe: Probe) -> Port:
    return next(p for p in thing.ports if (p.number, number_of(p)) == (probe.number, probe.protocol))


def meant(world: World, caller: Thing, callee: Thing, way: str) -> Thing | None:
    """Whom the caller means by the callee's name.

    A name means what it means to whoever says it: the namesake in the caller's own surroundings, never
    somebody else's.
    """
    for thing in world.things:
        if strangers(caller, thing) or thing.name != callee.name:
            continue
        if thing.cell == caller.cell if way == SHORT else thing.project == callee.project:
            return thing
    return None


def answers(world: World, caller: Thing, callee: Thing, port: Port, way: str) -> str:
    """A component's call of a component; ``way`` is the service's address or that of a replica."""
    if way == SERVICE and not port.declared:
        return NO  # there is no such service
    if strangers(caller, callee):
        return NO
    if port.declared and _invited(world, caller, callee, port, way):
        return YES
    if world.place(caller).audit and _could_be_declared(caller, callee, port):
        return REPORTED
    return NO


def _invited(world: World, caller: Thing, callee: Thing, port: Port, way: str) -> bool:
    """What the declarations as they are say about a declared port."""
    if caller is callee:
        return True
    linked = any(link.to == callee.identity and link.port == port.name for link in caller.links)
    if caller.cell == callee.cell:
        needs_link = port.callers or world.place(caller).strict
        by_gateway = port.callers
    else:
        if port.visibility == "cell":
            return False
        needs_link = True
        by_gateway = port.protocol in ("http", "grpc")
    if needs_link and not linked:
        return False
    # What must pass a gateway can't be had behind the gateway's back.
    return not (by_gateway and way == CONTAINER)


def _could_be_declared(caller: Thing, callee: Thing, port: Port) -> bool:
    """What some declaration of the tenant's own would open, without a gateway's word on who calls."""
    if port.callers and caller is not callee:
        return False
    return caller.cell == callee.cell or (port.declared and port.visibility != "cell")


def _echoes(world: World, caller: Thing, probe: Probe) -> bool:
    """Echo: from one's own address, from what may be pinged by its callers, from a network declared for it.

    Audit has no part in it.
    """
    if probe.where:
        return _declared_outside(caller, probe, "icmp")
    if probe.copy == probe.caller:
        return True
    callee = world.thing(probe.callee)
    ports = [port for port in callee.ports if port.declared]
    return callee.ping and any(answers(world, caller, callee, port, SERVICE) == YES for port in ports)


def _leaving(world: World, caller: Thing, probe: Probe) -> str:
    if _declared_outside(caller, probe, {6: "tcp", 17: "udp"}[probe.protocol]):
        return YES
    return REPORTED if world.place(caller).audit and probe.where in OUTSIDE else NO


def _declared_outside(caller: Thing, probe: Probe, word: str) -> bool:
    if probe.where not in OUTSIDE:
        return False  # the node and the floor, whatever is declared
    address = ipaddress.ip_address(probe.where)
    for exit in caller.exits:
        if exit.cidr and (exit.number, exit.protocol) == (probe.number, word):
            network = ipaddress.ip_network(exit.cidr)
            if address.version == network.version and address in network:
                return True
    return False


def _listener(world: World, caller: Thing, probe: Probe) -> tuple[str, set[str]]:
    """A gateway's listener is its consumer's alone, and only where the gateway is the way at all."""
    for link in caller.links:
        if (link.to, link.listener) != (probe.callee, probe.number):
            continue
        callee = world.thing(link.to)
        port = next(p for p in callee.ports if p.name == link.port)
        neighbours = caller.cell == callee.cell
        by_gateway = port.callers if neighbours else port.protocol in ("http", "grpc")
        # Where it is declared twice, the older declaration has the listener.
        first = min(other.rule for other in caller.links if (other.to, other.port) == (link.to, link.port))
        if by_gateway and link.rule == first:
            by_service = answers(world, caller, callee, port, SERVICE)
            if by_service == YES:
                return YES, serving(callee)
    return NO, set()
