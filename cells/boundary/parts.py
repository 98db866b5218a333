"""Explanations of calls in which the platform's own parts, the node or the internet are an end."""

from __future__ import annotations

from cells.boundary import ends, outside
from cells.boundary.edges import decide
from cells.boundary.ends import End, UnknownEndError
from cells.boundary.model import (
    PROTOCOLS,
    RULE_FLOOR,
    RULE_NORTH,
    RULE_RESOLVER,
    Cell,
    Endpoint,
    Explanation,
    Topology,
    Workload,
)
from cells.boundary.remedies import endpoint

_OUTSIDE = (ends.INTERNET, ends.NETWORK, ends.HOST)


def called(topology: Topology, start: End, target: End, port: int, protocol: str) -> list[Explanation]:
    """A component calls a part of the platform, the node or another tenant."""
    cell, consumer = start.cell, start.workload
    assert cell is not None and consumer is not None
    who = f"`{consumer.name}`"
    if target.kind == ends.STRANGER:
        return [stranger(who)]
    if target.kind == ends.NODE:
        return [outside.floored("The node")]
    if target.kind == ends.RESOLVER:
        if port in (0, 53) and protocol in ("", "tcp", "udp"):
            sentence = f"{who} may ask the platform's resolver, at port 53 over UDP and TCP."
            return [Explanation(True, "RESOLVER", RULE_RESOLVER, sentence, port=53, protocol=protocol)]
        sentence = "The platform's resolver is asked at port 53 over UDP or TCP and nowhere else."
        return [Explanation(False, "PLATFORM_ONLY", RULE_RESOLVER, sentence, port=port, protocol=protocol)]
    return [_listener(topology, cell, consumer, target, port, protocol)]


def _listener(
    topology: Topology, cell: Cell, consumer: Workload, target: End, port: int, protocol: str
) -> Explanation:
    """A gateway's listeners are each one connection's consumer's."""
    known: dict[int, tuple[str, int]] = {}
    if target.kind == ends.NORTH:
        doors = [c for c in consumer.connections if c.external and c.external.public]
        if doors:
            first = min(doors, key=lambda c: c.rule)
            known[first.listener_port] = "the public hosts that it declares", first.rule
    elif target.cell is not None:
        for provider in target.cell.workloads:
            for declared in provider.endpoints:
                edge = decide(cell, consumer, target.cell, provider, declared)
                if edge.connection is not None:
                    known[edge.connection.listener_port] = f"`{provider.name}.{declared.name}`", edge.rule
    if protocol in ("", "tcp"):
        for number, (what, rule) in known.items():
            if port in (0, number):
                sentence = f"At port {number} the gateway has a listener for `{consumer.name}` alone, which leads to {what}."  # fmt: skip
                return Explanation(True, "CONNECTION", rule, sentence, via_gateway=True, port=number, protocol="tcp")  # fmt: skip
    sentence = (
        "A gateway answers a component only at the listeners of its own connections, and there is none "
        f"for `{consumer.name}`" + (f" at port {port}/{protocol or 'tcp'}." if port else ".")
    )
    return Explanation(False, "PLATFORM_ONLY", RULE_NORTH, sentence, port=port, protocol=protocol)


def calls(topology: Topology, start: End, target: End, port: int, protocol: str) -> list[Explanation]:
    """The internet, the node, a part of the platform or another tenant calls."""
    if start.closed or start.kind == ends.STRANGER:
        return [_by_stranger(target)]
    if start.kind == ends.DOOR:
        raise UnknownEndError("The door to public hosts calls nobody.", "Name a component or `internet`.")
    if target.workload is not None and target.cell is not None:
        if start.kind in _OUTSIDE:
            return _from_internet(target, port, protocol)
        return _from_part(topology, start, target, target.cell, target.workload, port, protocol)
    world = start.kind in (*_OUTSIDE, ends.NODE)
    if target.kind == ends.NORTH and world:
        ports = {topology.north_port, *topology.public_ports}
        if protocol in ("", "tcp") and (not port or port in ports):
            sentence = "The north gateway answers everybody outside at the public port, for public hosts alone."  # fmt: skip
            return [Explanation(True, "PUBLIC", RULE_NORTH, sentence, via_gateway=True, protocol="tcp")]
        sentence = f"The north gateway answers at port {', '.join(map(str, sorted(ports)))} over TCP and nowhere else."  # fmt: skip
        return [Explanation(False, "PLATFORM_ONLY", RULE_NORTH, sentence, port=port, protocol=protocol)]
    if target.kind in (ends.GATEWAY, ends.NORTH, ends.RESOLVER):
        sentence = f"The {target.kind} answers components alone, and here {start.sentence} is the caller."
        rule = RULE_RESOLVER if target.kind == ends.RESOLVER else RULE_NORTH
        return [Explanation(False, "PLATFORM_ONLY", rule, sentence, port=port, protocol=protocol)]
    if start.kind in (ends.NORTH, ends.GATEWAY):
        sentence = "A gateway calls the components that it leads to and nobody else."
        return [Explanation(False, "PLATFORM_ONLY", RULE_NORTH, sentence, port=port, protocol=protocol)]
    raise UnknownEndError(
        "Neither end is a component, a gateway or the resolver of a cell, so the boundary doesn't judge it.",
        "Name a component as one of the two ends.",
    )


def stranger(who: str) -> Explanation:
    """The answer about another tenant, the same whoever that is and whether or not anybody is there."""
    return Explanation(
        False,
        "OTHER_TENANT",
        RULE_FLOOR,
        f"{who} can't reach another tenant: cells of different tenants never talk directly.",
        "Call its public host name through an `external` connection, if it has one.",
    )


def _by_stranger(target: End) -> Explanation:
    name = f"`{target.workload.name}`" if target.workload else "it"
    sentence = f"Another tenant can't reach {name}: cells of different tenants never talk directly."
    return Explanation(
        False,
        "OTHER_TENANT",
        RULE_FLOOR,
        sentence,
        "Make the endpoint public: others then reach it as the internet does.",
    )


def _from_internet(target: End, port: int, protocol: str) -> list[Explanation]:
    cell, provider = target.cell, target.workload
    assert cell is not None and provider is not None
    asked = [
        e
        for e in provider.endpoints
        if target.endpoint in ("", e.name)
        and port in (0, e.port)
        and (not protocol or PROTOCOLS.get(protocol) == e.number)
    ]
    answers = [_public(cell, provider, e, port) for e in asked] or [_public(cell, provider, None, port)]
    return sorted(answers, key=lambda answer: not answer.allowed)


def _public(cell: Cell, provider: Workload, declared: Endpoint | None, port: int) -> Explanation:
    spoken = "udp" if declared and declared.protocol == "udp" else "tcp"
    if declared is not None and declared.visibility == "public" and declared.hosts:
        return Explanation(
            True,
            "PUBLIC",
            declared.rule,
            f"The internet reaches `{provider.name}` as {', '.join(declared.hosts)} through the north gateway.",
            via_gateway=True,
            port=declared.port,
            protocol=spoken,
            endpoint=declared.name,
        )
    name = declared.name if declared else "main"
    what = f"Endpoint `{name}` of `{provider.name}` isn't public" if declared else f"`{provider.name}` has no public endpoint"  # fmt: skip
    return Explanation(
        False,
        "NOT_PUBLIC",
        declared.rule if declared else cell.rule,
        what + (f" on port {port}." if port and declared is None else "."),
        endpoint(provider.name, name, f"visibility: public, host: {provider.name}"),
        port=declared.port if declared else port,
        protocol=spoken,
        endpoint=declared.name if declared else "",
    )


def _from_part(
    topology: Topology, start: End, target: End, cell: Cell, provider: Workload, port: int, protocol: str
) -> list[Explanation]:
    """The node, a gateway or the resolver calls a component."""
    if start.kind == ends.NODE:
        sentence = (
            f"No packet of the node's reaches `{provider.name}`: its agent checks it from inside the "
            "replica's own network."
        )
        return [Explanation(False, "NODE", RULE_FLOOR, sentence, port=port, protocol=protocol)]
    if start.kind == ends.RESOLVER:
        sentence = "The resolver answers and asks its upstream; it calls no component."
        return [Explanation(False, "PLATFORM_ONLY", RULE_RESOLVER, sentence, port=port, protocol=protocol)]
    found = []
    for declared in provider.endpoints:
        if port not in (0, declared.port) or (protocol and PROTOCOLS.get(protocol) != declared.number):
            continue
        spoken = "udp" if declared.protocol == "udp" else "tcp"
        leads = _leads(topology, start, cell, provider, declared)
        sentence = f"The gateway {'passes on calls' if leads else 'passes on nothing'} to `{provider.name}`, endpoint `{declared.name}`"  # fmt: skip
        why = f": {leads}." if leads else ": no connection and no public host leads there through it."
        reason = "GATEWAY" if leads else "PLATFORM_ONLY"
        found.append(Explanation(bool(leads), reason, declared.rule, sentence + why, port=declared.port,
                                 protocol=spoken, endpoint=declared.name))  # fmt: skip
    if found:
        return found
    sentence = f"`{provider.name}` declares no endpoint that a gateway could pass anything on to."
    return [Explanation(False, "PORT_NOT_DECLARED", cell.rule, sentence, port=port, protocol=protocol)]


def _leads(topology: Topology, start: End, cell: Cell, provider: Workload, declared: Endpoint) -> str:
    """Why the gateway may call the endpoint; "" if it may not."""
    if start.kind == ends.NORTH:
        return "it is public" if declared.visibility == "public" else ""
    if start.cell is None or start.cell.number != cell.number:
        return ""
    for other in topology.cells:
        # A gateway's connections are its tenant's own.
        for consumer in other.workloads if other.tenant == cell.tenant else ():
            if decide(other, consumer, cell, provider, declared).via_gateway:
                return f"`{consumer.name}` of {other.project} declares a connection"
    return ""
