"""Who is who: what a person writes for an end of a call, as the boundary knows it.

Only what is the reader's tenant's has a name here. Somebody else's component, project or address is
found exactly as little as one that doesn't exist.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

from cells.boundary.model import (
    IDENTITY_NODE,
    IDENTITY_NORTH,
    IDENTITY_RESOLVER,
    IDENTITY_WORLD,
    Cell,
    Topology,
    Workload,
)

COMPONENT, INTERNET, NODE, GATEWAY = "component", "internet", "node", "gateway"
NORTH, RESOLVER, NETWORK, HOST = "north gateway", "resolver", "network", "host"
DOOR, STRANGER = "door", "another tenant"
#: Ways to a component: by its name or its service's address, and by an address of a replica itself.
BY_SERVICE, BY_ADDRESS = "service", "address"

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_WORDS = {
    "world": INTERNET,
    "node": NODE,
    "the node": NODE,
    "north": NORTH,
    "north gateway": NORTH,
    "resolver": RESOLVER,
    "the resolver": RESOLVER,
    "another tenant": STRANGER,
}
_PLATFORM = {
    IDENTITY_WORLD: INTERNET,
    IDENTITY_NODE: NODE,
    IDENTITY_NORTH: NORTH,
    IDENTITY_RESOLVER: RESOLVER,
}
_NAME = r"[a-z][a-z0-9-]{0,39}"
_PATH = re.compile(rf"(?:({_NAME})/)?({_NAME})(?:\.({_NAME}))?(?:@({_NAME}))?")
_HOST = re.compile(
    r"(?=.{1,253}\Z)(\*\.)?[a-z0-9_]([a-z0-9_-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)+\.?"
)
_SUFFIX = ".cy.internal"


class UnknownEndError(ValueError):
    """Nothing of the reader's is called so. ``following`` says what to write instead."""

    def __init__(self, message: str, following: str) -> None:
        self.message, self.following = message, following
        super().__init__(message)


@dataclass(frozen=True)
class End:
    """One end of a call. ``text`` is how it was asked about; ``endpoint`` is set where one was named."""

    kind: str
    text: str
    cell: Cell | None = None
    workload: Workload | None = None
    endpoint: str = ""
    way: str = BY_SERVICE
    network: Network | None = None
    #: Whose address it is, where it is a replica's own.
    replica: str = ""
    #: An address that belongs to somebody whom the reader can't see.
    closed: bool = False

    @property
    def identity(self) -> int:
        """What the kernel knows it by; 0 where that isn't the reader's to know, or several."""
        if self.workload is not None:
            return self.workload.identity
        if self.kind == GATEWAY and self.cell is not None:
            return self.cell.gateway_identity
        return next((number for number, kind in _PLATFORM.items() if kind == self.kind), 0)

    @property
    def sentence(self) -> str:
        """Who it is, for people; what begins it is the kind of thing."""
        if self.workload is not None and self.cell is not None:
            where = f"{self.cell.project}, {self.cell.environment}"
            return f"component `{self.workload.name}` of {where}"
        if self.kind == GATEWAY and self.cell is not None:
            return f"gateway of {self.cell.project}, {self.cell.environment}"
        return {
            INTERNET: "anybody outside the platform",
            NODE: "the node itself",
            NORTH: "the gateway between the internet and public endpoints",
            RESOLVER: "the platform's resolver",
            NETWORK: f"address or network {self.network}",
            HOST: f"host name {self.text}",
            DOOR: "the way to public hosts of the platform",
            STRANGER: "another tenant",
        }[self.kind]


def of_identity(topology: Topology, identity: int) -> End:
    """The end with an identity. Raises ``KeyError`` for one that isn't in the topology."""
    if identity in _PLATFORM:
        return End(_PLATFORM[identity], _PLATFORM[identity])
    for cell in topology.cells:
        if cell.gateway_identity == identity:
            return End(GATEWAY, "gateway", cell)
        for workload in cell.workloads:
            if workload.identity == identity:
                return End(COMPONENT, workload.name, cell, workload)
    raise KeyError(identity)


def find(topology: Topology, text: str, reader: Cell | None) -> End:
    """The end that ``text`` names for somebody of the cell ``reader``; None sees addresses alone.

    A component goes before a part of the platform that has its name, except for `internet`. Raises
    ``UnknownEndError``.
    """
    text = text.strip()
    if text == INTERNET:
        return End(INTERNET, text)
    network = _network(text)
    if network is not None:
        return _address(topology, text, network, reader)
    if reader is not None:
        found = _component(topology, text, reader) or _gateway(topology, text, reader)
        if found is not None:
            return found
    if text in _WORDS:
        return End(_WORDS[text], text)
    lower = text.lower()
    if _HOST.fullmatch(lower) and "/" not in lower and not lower.endswith(_SUFFIX):
        return End(HOST, lower.rstrip("."))
    raise _unknown(topology, text, reader)


def public(topology: Topology, host: str, tenant: int) -> End | None:
    """The component of the tenant that a public host name leads to."""
    for cell in topology.cells:
        for workload in cell.workloads if cell.tenant == tenant else ():
            for endpoint in workload.endpoints:
                if host in endpoint.hosts:
                    return End(COMPONENT, host, cell, workload, endpoint.name)
    return None


def _network(text: str) -> Network | None:
    try:
        network = ipaddress.ip_network(text.strip("[]"), strict=False)
    except ValueError:
        return None
    # On the wire an address that is mapped into IPv6 is an IPv4 address.
    mapped = getattr(network.network_address, "ipv4_mapped", None)
    if mapped is not None and network.prefixlen >= 96:
        return ipaddress.ip_network((mapped, network.prefixlen - 96))
    return network


def _own(topology: Topology, reader: Cell) -> Iterator[Cell]:
    return (cell for cell in topology.cells if cell.tenant == reader.tenant)


def _component(topology: Topology, text: str, reader: Cell) -> End | None:
    match = _PATH.fullmatch(text.removesuffix(_SUFFIX))
    if match is None:
        return None
    project, component, last, environment = match.groups()
    environment = environment or reader.environment
    readings = [(project or reader.project, component, last or "")]
    if last and not project:
        # As the resolver knows it, and only then as cytoplane.yaml writes an endpoint.
        readings.insert(0, (last, component, ""))
    for where, name, endpoint in readings:
        for cell in _own(topology, reader):
            if (cell.project, cell.environment) != (where, environment):
                continue
            for workload in cell.workloads:
                known = not endpoint or any(e.name == endpoint for e in workload.endpoints)
                if workload.name == name and known:
                    return End(COMPONENT, text, cell, workload, endpoint)
    return None


def _gateway(topology: Topology, text: str, reader: Cell) -> End | None:
    if text in ("gateway", "the gateway"):
        return End(GATEWAY, text, reader)
    project = text.removeprefix("gateway of ")
    if project != text:
        for cell in _own(topology, reader):
            if (cell.project, cell.environment) == (project, reader.environment):
                return End(GATEWAY, text, cell)
    return None


def _address(topology: Topology, text: str, network: Network, reader: Cell | None) -> End:
    """Whose address it is. A stranger's is as closed as the platform's addresses that nobody has."""
    outside = End(NETWORK, text, network=network)
    if network.num_addresses > 1:
        return outside
    address = str(network.network_address)
    for kind, addresses in (
        (NORTH, (topology.north4, topology.north6)),
        (RESOLVER, (topology.resolver4, topology.resolver6)),
        (DOOR, (topology.door4, topology.door6)),
    ):
        if address in addresses:
            return End(kind, text, network=network)
    for cell in topology.cells:
        found = None
        if address in (cell.gateway4, cell.gateway6):
            found = End(GATEWAY, text, cell)
        for workload in cell.workloads:
            if address in (workload.service4, workload.service6):
                found = End(COMPONENT, text, cell, workload)
            for replica in workload.replicas:
                if address in (replica.v4, replica.v6):
                    found = End(COMPONENT, text, cell, workload, way=BY_ADDRESS, replica=replica.id)
        if found is not None:
            mine = reader is None or cell.tenant == reader.tenant
            return found if mine else replace(outside, closed=True)
    return outside


def _unknown(topology: Topology, text: str, reader: Cell | None) -> UnknownEndError:
    how = "Write a component, project/component, `internet`, an address, a network or a host name."
    match = _PATH.fullmatch(text)
    if match is None or reader is None:
        return UnknownEndError(f"`{text[:80]}` can't be an end of a call.", how)
    project, component, _, environment = match.groups()
    where = f"{project or reader.project}, {environment or reader.environment}"
    known = sorted(w.name for w in reader.workloads)
    following = f"Components here are {', '.join(known)}; another project's is `project/component`." if known else how  # fmt: skip
    return UnknownEndError(f"No component `{component}` runs in {where} as far as you can see.", following)
