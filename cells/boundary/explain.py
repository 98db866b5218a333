"""Why a call is allowed or denied, as a sentence, with the declaration that would open it."""

from __future__ import annotations

import ipaddress

from cells.boundary.edges import decide, floor_reason
from cells.boundary.model import (
    PROTOCOLS,
    RULE_FLOOR,
    RULE_NORTH,
    Cell,
    Explanation,
    Topology,
    Workload,
)

INTERNET = "internet"


def explain(
    topology: Topology, source: int | str, destination: int | str, port: int = 0, protocol: str = "tcp"
) -> Explanation:
    """Explain a call.

    ``source`` is a workload's identity or ``"internet"``; ``destination`` an identity, an address
    or network, or a public host name. ``port`` 0 takes the destination's first endpoint. Raises
    ``KeyError`` for an identity that isn't in the topology.
    """
    everyone = topology.by_identity()
    if source == INTERNET:
        return _from_internet(*everyone[int(destination)], port)
    cell, consumer = everyone[int(source)]
    if isinstance(destination, int):
        return _between(cell, consumer, *everyone[destination], port, protocol)
    return _outside(topology, consumer, destination, port, protocol)


def _endpoint(provider: Workload, port: int, protocol: str):
    for endpoint in provider.endpoints:
        same_family = port == 0 or PROTOCOLS[endpoint.protocol] == PROTOCOLS[protocol]
        if (port in (0, endpoint.port)) and same_family:
            return endpoint
    return None


def _between(
    cell: Cell, consumer: Workload, provider_cell: Cell, provider: Workload, port: int, protocol: str
) -> Explanation:
    foreign = cell.tenant != provider_cell.tenant
    there = "another tenant" if foreign else f"`{provider.name}` of {provider_cell.project}"
    if foreign:
        return Explanation(
            False,
            "OTHER_TENANT",
            provider_cell.rule,
            f"`{consumer.name}` can't reach {there}: cells of different tenants never talk directly.",
            "Call its public host name through an `external` connection, if it has one.",
        )
    endpoint = _endpoint(provider, port, protocol)
    if endpoint is None:
        return Explanation(
            False,
            "PORT_NOT_DECLARED",
            provider_cell.rule,
            f"{there} declares no endpoint on port {port}/{protocol}.",
            f"components:\n  {provider.name}:\n    endpoints:\n      main: {{port: {port}, protocol: {protocol}}}",
        )
    edge = decide(cell, consumer, provider_cell, provider, endpoint)
    target = (
        provider.name if cell.number == provider_cell.number else f"{provider_cell.project}/{provider.name}"
    )
    fix = f"components:\n  {consumer.name}:\n    connections:\n      - {{to: {target}.{endpoint.name}}}"
    what = f"{there}, endpoint `{endpoint.name}` ({endpoint.port}/{endpoint.protocol})"
    if edge.allowed:
        how = {
            "SELF": "a component always reaches itself",
            "SAME_CELL": "both are in the same cell and the endpoint is declared",
            "CONNECTION": "the connection is declared",
        }[edge.reason]
        way = ", through the cell's gateway" if edge.via_gateway else ""
        return Explanation(
            True,
            edge.reason,
            edge.rule,
            f"`{consumer.name}` may call {what}: {how}{way}.",
            "",
            edge.via_gateway,
        )
    sentences = {
        "OTHER_ENVIRONMENT": (
            f"`{consumer.name}` runs in {cell.environment}, {there} in {provider_cell.environment}: "
            "environments never talk to each other.",
            "",
        ),
        "STRICT": (
            f"The project is strict and no connection from `{consumer.name}` to {what} is declared.",
            fix,
        ),
        "CALLERS_ONLY": (
            f"{what} receives callers' names, so it is called through its gateway only, "
            f"and `{consumer.name}` declares no connection to it.",
            fix,
        ),
        "VISIBILITY": (
            f"{what} is visible in its own cell only.",
            f"components:\n  {provider.name}:\n    endpoints:\n      {endpoint.name}: {{visibility: tenant}}",
        ),
        "NOT_CONNECTED": (f"`{consumer.name}` declares no connection to {what}.", fix),
    }
    sentence, remedy = sentences[edge.reason]
    return Explanation(False, edge.reason, edge.rule, sentence, remedy)


def _from_internet(cell: Cell, provider: Workload, port: int) -> Explanation:
    endpoint = _endpoint(provider, port, "tcp")
    if not port:
        endpoint = next((e for e in provider.endpoints if e.hosts), endpoint)
    if endpoint is not None and endpoint.visibility == "public" and endpoint.hosts:
        return Explanation(
            True,
            "PUBLIC",
            endpoint.rule,
            f"The internet reaches `{provider.name}` as {', '.join(endpoint.hosts)} through the north gateway.",
            via_gateway=True,
        )
    name = endpoint.name if endpoint else "main"
    return Explanation(
        False,
        "NOT_PUBLIC",
        endpoint.rule if endpoint else cell.rule,
        f"`{provider.name}` has no public endpoint" + (f" on port {port}." if port else "."),
        f"components:\n  {provider.name}:\n    endpoints:\n      {name}: {{visibility: public, host: {provider.name}}}",
    )


def _outside(
    topology: Topology, consumer: Workload, destination: str, port: int, protocol: str
) -> Explanation:
    try:
        network = ipaddress.ip_network(destination, strict=False)
    except ValueError:
        return _host(consumer, destination)
    floored = floor_reason(topology.floor, destination)
    if floored:
        return Explanation(
            False,
            "FLOOR",
            RULE_FLOOR,
            f"{destination} belongs to what no tenant can open ({floored}).",
        )
    for connection in consumer.connections:
        external = connection.external
        if external is None or not external.cidr:
            continue
        declared = ipaddress.ip_network(external.cidr, strict=False)
        inside = declared.version == network.version and network.subnet_of(declared)  # type: ignore[arg-type]
        if inside and PROTOCOLS[external.protocol] == PROTOCOLS[protocol] and external.port in (0, port):
            return Explanation(
                True,
                "EXTERNAL",
                connection.rule,
                f"`{consumer.name}` may call {destination}:{port}/{protocol}: {external.cidr} is declared.",
            )
    cidr = destination if "/" in destination else f"{destination}/{network.max_prefixlen}"
    return Explanation(
        False,
        "EGRESS_NOT_DECLARED",
        0,
        f"`{consumer.name}` declares no connection to {destination}:{port}/{protocol}; egress is closed.",
        f"components:\n  {consumer.name}:\n    connections:\n"
        f"      - {{external: {{cidr: {cidr}, port: {port or 443}, protocol: {protocol}}}}}",
    )


def _host(consumer: Workload, host: str) -> Explanation:
    for connection in consumer.connections:
        if connection.external is not None and connection.external.host == host:
            return Explanation(
                True,
                "EXTERNAL",
                connection.rule,
                f"`{consumer.name}` may call {host} as a stranger would, through the north gateway.",
                via_gateway=True,
            )
    return Explanation(
        False,
        "EGRESS_NOT_DECLARED",
        RULE_NORTH,
        f"`{consumer.name}` declares no connection to {host}; egress is closed.",
        f"components:\n  {consumer.name}:\n    connections:\n"
        f"      - {{external: {{host: {host}, port: 80, protocol: http}}}}",
    )
