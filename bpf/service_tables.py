"""Service addresses in the kernel: a fresh set of backends first, then the one update that points to it.

What is in force is read back from the maps once, so a restart continues where the kernel is.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from bpf import layout
from bpf import sys as bpf
from bpf.slots import Backend, spread

RANDOM, CONSISTENT = "random", "consistent"


class Service(NamedTuple):
    """A service address and port as ``consumer`` (0: anybody) sees it.

    ``backends`` are ``Backend`` or (address, port). ``choice`` is ``random`` or ``consistent``: the same
    caller then gets the same backend. ``affinity`` is for how many seconds after its last call a caller
    stays with its backend, while that one serves; 0: not at all.
    """

    consumer: int
    address: str
    port: int
    protocol: int
    backends: tuple[Backend | tuple[str, int], ...]
    choice: str = RANDOM
    affinity: int = 0

    @property
    def key(self) -> bytes:
        """What the kernel knows it by."""
        return key_of(self.consumer, self.address, self.port, self.protocol)


def key_of(consumer: int, address: str, port: int, protocol: int) -> bytes:
    """The kernel's key of a service."""
    return layout.SERVICE_KEY.pack(consumer, layout.pack_address(address), port, protocol)


class _InForce(NamedTuple):
    identifier: int
    slots: tuple[tuple[str, int], ...]
    consistent: bool
    affinity: int


class ServiceTables:
    """The part of ``Tables`` about services."""

    _maps: dict[str, bpf.Map]
    _next_service: int

    def set_services(self, services: Iterable[Service]) -> int:
        """Put exactly these services in force; the number that changed."""
        wanted = {service.key: service for service in services}
        changed = sum(self.set_service(service) for service in wanted.values())
        for key in [known for known in self._services if known not in wanted]:
            self.remove_service(key)
            changed += 1
        return changed

    def set_service(self, service: Service) -> bool:
        """Put one service in force; whether that changed anything. Raises ``OSError`` if a map is full."""
        key = service.key
        consistent = service.choice == CONSISTENT
        slots = spread([Backend(*b) for b in service.backends], consistent)
        old = self._services.get(key)
        if old and old[1:] == (slots, consistent, service.affinity):
            return False
        self._next_service = self._next_service % 0xFFFFFFFF + 1
        fresh = _InForce(self._next_service, slots, consistent, service.affinity)
        try:
            for slot, (address, port) in enumerate(slots):
                value = layout.BACKEND.pack(layout.pack_address(address), port)
                self._maps["backends"].set(layout.BACKEND_KEY.pack(fresh.identifier, slot), value)
            if service.affinity:
                for address, port in set(slots):
                    self._maps["members"].set(_member(fresh.identifier, address, port), layout.U32.pack(1))
            value = layout.SERVICE.pack(fresh.identifier, len(slots), int(consistent), service.affinity)
            self._maps["services"].set(key, value)
        except OSError:
            self._drop_set(fresh)
            raise
        self._services[key] = fresh
        if old:
            self._drop_set(old)
        return True

    def remove_service(self, key: bytes) -> None:
        """Forget a service; calls to it are refused."""
        old = self._services.pop(key, None)
        self._maps["services"].delete(key)
        if old:
            self._drop_set(old)

    def backends(self) -> set[tuple[str, int]]:
        """(address, port) of every backend of any service."""
        return {slot for service in self._services.values() for slot in service.slots}

    def _drop_set(self, old: _InForce) -> None:
        for slot in range(len(old.slots)):
            self._maps["backends"].delete(layout.BACKEND_KEY.pack(old.identifier, slot))
        if old.affinity:
            for address, port in set(old.slots):
                self._maps["members"].delete(_member(old.identifier, address, port))

    @property
    def _services(self) -> dict[bytes, _InForce]:
        """Services in force; read once from the kernel, then kept."""
        if not hasattr(self, "_cached_services"):
            found: dict[bytes, _InForce] = {}
            for key, value in self._maps["services"].items():
                identifier, number, consistent, affinity = layout.SERVICE.unpack(value)
                slots = []
                for slot in range(number):
                    raw = self._maps["backends"].get(layout.BACKEND_KEY.pack(identifier, slot))
                    if raw:
                        address, port = layout.BACKEND.unpack(raw)
                        slots.append((layout.unpack_address(address), port))
                found[key] = _InForce(identifier, tuple(slots), bool(consistent), affinity)
            used = {service.identifier for service in found.values()}
            # What a crash left behind.
            for name, key_layout in (("backends", layout.BACKEND_KEY), ("members", layout.MEMBER_KEY)):
                for key in self._maps[name].keys():
                    if key_layout.unpack(key)[0] not in used:
                        self._maps[name].delete(key)
            self._next_service = max(used, default=0)
            self._cached_services = found
        return self._cached_services


def _member(identifier: int, address: str, port: int) -> bytes:
    return layout.MEMBER_KEY.pack(identifier, port, layout.pack_address(address))
