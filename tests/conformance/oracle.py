"""The rules of the cell boundary in other words. It never calls the compiler.

A call is described by what a person sees: who calls whom, on which port, and by which way
(the component's name, the service's address or the container's own).
"""

from __future__ import annotations

from tests.conformance.world import Port, Thing, World

SERVICE, CONTAINER, NAME = "service", "container", "name"


def answers(world: World, caller: Thing, callee: Thing, port: Port, way: str) -> bool:
    """Whether the call gets an answer from the callee's process."""
    if caller is callee:
        # It's its own namespace; by the service's address only what is declared has a translation.
        return way == CONTAINER or port.declared
    if not port.declared:
        return False
    if strangers(caller, callee):
        return False
    linked = any(link.to == callee.identity and link.port == port.name for link in caller.links)
    neighbours = caller.cell == callee.cell
    talks_http = port.protocol == "http"
    if neighbours:
        needs_link = port.callers or caller.cell in world.strict
        by_gateway = port.callers
    else:
        if port.visibility == "cell":
            return False
        needs_link = True
        by_gateway = talks_http
    if needs_link and not linked:
        return False
    # What must pass a gateway can't be had behind the gateway's back.
    return not (by_gateway and way == CONTAINER)


def by_name(world: World, caller: Thing, callee: Thing, port: Port) -> str:
    """Whose process answers when the caller uses the callee's name, `component.project`; "" for nobody.

    A name means what it means to whoever says it: the namesake in the caller's own surroundings, never
    somebody else's.
    """
    for thing in world.things:
        if strangers(caller, thing) or (thing.name, thing.project) != (callee.name, callee.project):
            continue
        for twin in thing.ports:
            same = (twin.number, twin.is_tcp) == (port.number, port.is_tcp)
            if same and answers(world, caller, thing, twin, SERVICE):
                return str(thing.identity)
    return ""


def strangers(one: Thing, other: Thing) -> bool:
    """Different tenants, or stages of a pipeline that must not mix."""
    return one.tenant != other.tenant or one.environment != other.environment
