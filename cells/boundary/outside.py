"""Explanations of a component's calls to what lies outside: networks, names of DNS, public hosts."""

from __future__ import annotations

import ipaddress
from typing import Any

from cells.boundary import ends
from cells.boundary.edges import floor_reason
from cells.boundary.ends import End
from cells.boundary.model import (
    PROTOCOLS,
    RULE_FLOOR,
    RULE_NORTH,
    Cell,
    Connection,
    Explanation,
    External,
    Missing,
    Topology,
    Workload,
)
from cells.boundary.names import matches
from cells.boundary.remedies import connection

_ANYWHERE = {4: ipaddress.ip_network("0.0.0.0/0"), 6: ipaddress.ip_network("::/0")}
AUDITED = " The project is in audit, so it passes and is reported."


def explanations(topology: Topology, start: End, target: End, port: int, protocol: str) -> list[Explanation]:
    """The verdicts on a component's call to an address, a network, a host name, or the whole internet."""
    cell, consumer = start.cell, start.workload
    assert cell is not None and consumer is not None
    if target.kind == ends.DOOR:
        return [_door(topology, consumer, target, port, protocol)]
    if target.kind == ends.HOST:
        return _host(topology, cell, consumer, target.text, port, protocol)
    network = target.network or _ANYWHERE[4]
    if target.closed or floor_reason(topology.floor, str(network)):
        return [floored(target.text)]
    return _network(topology, cell, consumer, target, network, port, protocol)


def floored(text: str) -> Explanation:
    """The one answer for everything in the floor: who has an address in it, if anybody, isn't told."""
    return Explanation(
        False,
        "FLOOR",
        RULE_FLOOR,
        f"{text} belongs to what no tenant can open: addresses of the platform with other tenants' among "
        "them, of nodes and of metadata services, and private and link-local networks.",
    )


def _network(
    topology: Topology, cell: Cell, consumer: Workload, target: End, network: ends.Network, port: int, protocol: str
) -> list[Explanation]:  # fmt: skip
    found = []
    for declared in _declared(consumer, port, protocol):
        external = declared.external
        if external is None or not external.cidr:
            continue
        wide = ipaddress.ip_network(external.cidr, strict=False)
        if wide.version == network.version and network.subnet_of(wide):  # type: ignore[arg-type]
            found.append((-wide.prefixlen, declared.rule, declared, external))
    text = "the whole internet" if target.kind == ends.INTERNET else target.text
    if found:
        return [
            Explanation(
                True,
                "EXTERNAL",
                declared.rule,
                f"`{consumer.name}` may call {text}, {_spoken(external)}: "
                f"{external.cidr} is declared.{_part_of_floor(topology, network)}",
                port=external.port,
                protocol=external.protocol,
            )
            for _, _, declared, external in sorted(found, key=lambda row: row[:2])
        ]
    spoken = protocol or "tcp"
    if spoken == "icmp":
        port = 0
    asked = f", {_spoken(External(port, spoken))}" if port or spoken == "icmp" else ""
    sentence = f"`{consumer.name}` declares no connection to {text}{asked}; egress is closed."
    names = sorted({e.name for c in _declared(consumer, port, protocol) if (e := c.external) and e.name})
    if names and target.kind == ends.NETWORK and network.num_addresses == 1:
        sentence += f" It passes while the resolver's answer to {', '.join(names)} says this address."
    external = External(0 if spoken == "icmp" else port or 443, spoken, cidr=str(network))
    # Audit is for TCP and UDP.
    audited = cell.audit and spoken != "icmp"
    return [_closed(cell, consumer, external, sentence, port, spoken, audited=audited)]


def _spoken(external: External) -> str:
    return "echo" if external.protocol == "icmp" else f"port {external.port}/{external.protocol}"


def _part_of_floor(topology: Topology, network: ends.Network) -> str:
    for text, _ in topology.floor:
        floor = ipaddress.ip_network(text, strict=False)
        if floor.version == network.version and floor.subnet_of(network):  # type: ignore[arg-type]
            return " What of it belongs to the floor stays closed."
    return ""


def _declared(consumer: Workload, port: int, protocol: str) -> list[Connection]:
    """Connections that lead outside, to the port and by the protocol that are asked about."""
    return [
        connection
        for connection in sorted(consumer.connections, key=lambda c: c.rule)
        if (external := connection.external) is not None
        and (not protocol or PROTOCOLS[external.protocol] == PROTOCOLS[protocol])
        and (port in (0, external.port) or external.protocol == "icmp" == protocol)
    ]


def _host(
    topology: Topology, cell: Cell, consumer: Workload, host: str, port: int, protocol: str
) -> list[Explanation]:
    doors = [c for c in consumer.connections if c.external and c.external.public and c.external.host == host]
    if doors or (topology.apps_domain and is_below(host, topology.apps_domain)):
        return [_public(topology, consumer, host, doors, port, protocol)]
    found = [
        Explanation(
            True,
            "EXTERNAL",
            declared.rule,
            f"`{consumer.name}` may call {host}, port {external.port}/{external.protocol}, at the addresses "
            f"that the platform's resolver answers: {external.name} is declared.",
            port=external.port,
            protocol=external.protocol,
        )
        for declared in _declared(consumer, port, protocol)
        if (external := declared.external) and external.name and matches(external.name, host)
    ]
    if found:
        return found
    if protocol == "icmp":
        sentence = f"Echo is declared for networks alone, not for names like {host}, so it is refused."
        return [Explanation(False, "ECHO", 0, sentence, protocol=protocol)]
    spoken = protocol or "tcp"
    asked = f", port {port}/{spoken}" if port else ""
    sentence = f"`{consumer.name}` declares no connection to {host}{asked}; egress is closed."
    external = External(port or 443, spoken, host=host)
    return [_closed(cell, consumer, external, sentence, port, spoken, audited=cell.audit)]


def is_below(name: str, domain: str) -> bool:
    return name == domain or name.endswith(f".{domain}")


def _public(
    topology: Topology, consumer: Workload, host: str, doors: list[Connection], port: int, protocol: str
) -> Explanation:
    """The platform's own public hosts, everybody's alike, whether or not they exist."""
    ports = ", ".join(map(str, topology.public_ports))
    if protocol in ("", "tcp") and port and port not in topology.public_ports:
        sentence = f"Public hosts of the platform answer at port {ports}, not at {port}."
        return Explanation(False, "NOT_PUBLIC", RULE_NORTH, sentence, port=port, protocol="tcp")
    if doors and protocol in ("", "tcp"):
        first = min(doors, key=lambda c: c.rule)
        sentence = f"`{consumer.name}` may call {host} as a stranger would, through the north gateway."
        return Explanation(
            True, "EXTERNAL", first.rule, sentence, via_gateway=True, port=port, protocol="tcp"
        )
    external = External(80, "http", host=host)
    sentence = f"`{consumer.name}` declares no connection to {host}; egress is closed."
    missing = Missing(consumer.name, external=external)
    more: dict[str, Any] = {"missing": missing, "fix": connection(missing)} if not doors else {}
    if doors:
        sentence = f"Public hosts of the platform are called over TCP, at port {ports}."
    return Explanation(
        False, "EGRESS_NOT_DECLARED", RULE_NORTH, sentence, port=port, protocol=protocol or "tcp", **more
    )


def _door(topology: Topology, consumer: Workload, target: End, port: int, protocol: str) -> Explanation:
    hosts = sorted({c.external.host for c in consumer.connections if c.external and c.external.public})
    fits = protocol in ("", "tcp") and port in (0, *topology.public_ports)
    if not hosts or not fits:
        return floored(target.text)
    rule = min(c.rule for c in consumer.connections if c.external and c.external.host in hosts)
    sentence = f"It is where `{consumer.name}` finds the public hosts that it declares: {', '.join(hosts)}."
    return Explanation(True, "EXTERNAL", rule, sentence, via_gateway=True, port=port, protocol="tcp")


def _closed(
    cell: Cell, consumer: Workload, external: External, sentence: str, port: int, protocol: str, *, audited: bool
) -> Explanation:  # fmt: skip
    missing = Missing(consumer.name, external=external)
    return Explanation(
        False,
        "EGRESS_NOT_DECLARED",
        0,
        sentence + (AUDITED if audited else ""),
        connection(missing),
        audited=audited,
        port=port,
        protocol=protocol,
        missing=missing,
    )
