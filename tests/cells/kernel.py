"""The compiler's tables read as the kernel reads them: one packet's verdict, without a kernel."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from cells.boundary.model import ALLOW, AUDIT, DENY, EGRESS, IDENTITY_WORLD, INGRESS, TCP, Boundary

NO, YES, REPORTED = "no", "yes", "reported"


def _settled(verdicts: Iterable[int]) -> str:
    found = set(verdicts)
    if DENY in found:
        return NO
    return YES if ALLOW in found else REPORTED if AUDIT in found else NO


def _both(*outcomes: str) -> str:
    """What both ends say together: the stricter one."""
    return next(word for word in (NO, REPORTED, YES) if word in outcomes)


class Kernel:
    """A plane's tables. Addresses are text, protocols numbers."""

    def __init__(self, boundary: Boundary) -> None:
        self._boundary = boundary
        self._services = {(s.consumer, s.address, s.port, s.protocol): s for s in boundary.services}
        self._listeners = {(item.address4, item.port): item for item in boundary.listeners}
        self._listeners |= {(item.address6, item.port): item for item in boundary.listeners}
        self._doors = {(d.address4, d.port) for d in boundary.doors} | {
            (d.address6, d.port) for d in boundary.doors
        }
        self._clusters = {cluster.name: cluster for cluster in boundary.clusters}
        self._floor = [ipaddress.ip_network(text) for text, _ in boundary.floor]

    def connects(self, caller: int, own: str, address: str, port: int, protocol: int) -> str:
        """A process with the socket hooks' help: ``own`` is its replica's address of the same family."""
        service = self._services.get((caller, address, port, protocol))
        service = service or self._services.get((0, address, port, protocol))
        if service is None:
            return self.sends(caller, own, address, port, protocol)
        outcomes = [self._reaches(caller, own, backend, protocol) for backend in service.backends]
        return outcomes[0] if outcomes else NO

    def _reaches(self, caller: int, own: str, backend: tuple[str, str, int], protocol: int) -> str:
        _, address, port = backend
        first = self.sends(caller, own, address, port, protocol)
        listener = self._listeners.get((address, port))
        if listener is None or first == NO:
            return first
        gateway = self._boundary.addresses[address][0]
        for _, behind, number in self._clusters[listener.cluster].backends:
            return _both(first, self.sends(gateway, address, behind, number, TCP))
        return NO

    def sends(self, caller: int, own: str, address: str, port: int, protocol: int) -> str:
        """A packet to an address, as it is on the wire."""
        if own == address:
            return YES  # it never leaves the replica
        owner = self._boundary.addresses.get(address)
        if owner is None:
            return self._leaves(caller, address, port, protocol)
        return _both(
            self._policy(caller, owner[0], port, protocol, EGRESS),
            self._policy(owner[0], caller, port, protocol, INGRESS),
        )

    def arrives(self, address: str, port: int, protocol: int) -> str:
        """A packet from outside to an address of the platform's."""
        owner = self._boundary.addresses.get(address)
        return self._policy(owner[0], IDENTITY_WORLD, port, protocol, INGRESS) if owner else NO

    def _policy(self, local: int, remote: int, port: int, protocol: int, direction: int) -> str:
        return _settled(
            verdict
            for peer, number, spoken, way, verdict, _ in self._boundary.identities[local].policy
            if peer in (remote, 0) and number in (port, 0) and spoken == protocol and way == direction
        )

    def _leaves(self, caller: int, address: str, port: int, protocol: int) -> str:
        to = ipaddress.ip_address(address)
        if any(to in network for network in self._floor):
            return NO
        return _settled(
            verdict
            for text, number, spoken, verdict, _ in self._boundary.identities[caller].external
            if spoken == protocol and number in (port, 0) and to in ipaddress.ip_network(text)
        )
