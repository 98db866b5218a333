"""What explanations say of probes, to be compared with what the kernel did."""

from __future__ import annotations

from cells.boundary import explain
from cells.boundary.ends import INTERNET, UnknownEndError
from cells.boundary.model import ICMP, ICMPV6, TCP, UDP, Cell, Topology
from dataplane import addresses
from infra.config import Config
from tests.conformance import oracle
from tests.conformance.probes import (
    CONTAINER,
    DOOR,
    EXTERNAL,
    NAME,
    PING,
    PUBLIC,
    SERVICE,
    SHORT,
    Probe,
)
from tests.conformance.world import NODE, World

_WORDS = {TCP: "tcp", UDP: "udp", ICMP: "icmp", ICMPV6: "icmp"}


def says(topology: Topology, world: World, config: Config, probe: Probe) -> str:
    """The outcome in the oracle's words; "" where it isn't a call that can be asked about."""
    if probe.way == PUBLIC:
        return _words(topology, INTERNET, probe.callee, _public_port(world, probe), "tcp")
    if probe.caller < 0 or not probe.hooked:
        return ""
    caller = world.owner(probe.caller)
    if probe.copy == probe.caller:
        return ""  # its own address, which never leaves it
    reader = topology.by_identity()[caller.identity][0]
    destination = _destination(config, world, probe)
    if not destination:
        return ""
    return _words(topology, caller.identity, destination, probe.number, _WORDS[probe.protocol], reader)


def _destination(config: Config, world: World, probe: Probe) -> str:
    """What a person would write."""
    if probe.way in (DOOR, EXTERNAL, PING) and probe.where:
        # A node's own addresses are floor where it is; nobody else knows them.
        return "" if probe.where in NODE else probe.where
    if probe.way not in (NAME, SHORT, SERVICE, CONTAINER, PING):
        return ""
    callee, six = world.thing(probe.callee), probe.family == 6
    if probe.way in (NAME, SHORT):
        return callee.name if probe.way == SHORT else f"{callee.name}.{callee.project}"
    if probe.way == SERVICE:
        return addresses.service(config, callee.service)[six]
    return addresses.workload(config, probe.copy)[six]


def _words(
    topology: Topology,
    source: int | str,
    destination: int | str,
    port: int,
    protocol: str,
    reader: Cell | None = None,
) -> str:
    try:
        answer = explain(topology, source, destination, port, protocol, reader)
    except UnknownEndError:
        return oracle.NO
    if answer.allowed:
        return oracle.YES
    return oracle.REPORTED if answer.audited else oracle.NO


def _public_port(world: World, probe: Probe) -> int:
    callee = world.thing(probe.callee)
    return next(port.number for port in callee.ports if callee.host(port) == probe.where)
