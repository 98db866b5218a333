"""Ends connections that may not go on: what a change forbids, and what a backend that is gone leaves hanging.

The packets of a forbidden connection are dropped by the kernel's programs the moment the change is in
force; here both ends are told. Only namespaces of identities whose entries changed are looked at, and
there only what the tables in force don't allow is ended.
"""

from __future__ import annotations

import ipaddress
import logging
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from bpf import layout
from dataplane.agent import sockets
from dataplane.agent.sockets import Socket
from dataplane.agent.verdicts import Verdicts
from infra.config import Config

log = logging.getLogger("cytoplane.agent")
#: Seconds after which a change is looked at once more: a call may have been between hook and wire.
AGAIN = 0.5
_ANY = 0
#: A client in these states waits for something that can't come; in others it knows that the end has come.
_WAITING = frozenset({sockets.ESTABLISHED, sockets.SYN_SENT, sockets.FIN_WAIT1, sockets.FIN_WAIT2})
#: What the kernel still delivers for a process that has ended.
_DELIVERING = (sockets.FIN_WAIT1, sockets.CLOSING, sockets.LAST_ACK)

Ends = tuple[int, bytes, int, bytes, int]


def _among(ends: set[Ends], socket: Socket) -> bool:
    return socket.ends in ends


@dataclass(frozen=True)
class Place:
    """A namespace of the node and whose addresses it has."""

    name: str
    path: Path
    ifindex: int
    identities: frozenset[int]


@dataclass(frozen=True)
class Backend:
    """A replica that answers nobody any more. ``peers``: identities that may have called it.

    ``stuck``: its process lives, so its sockets are ended as well.
    """

    name: str
    addresses: tuple[str, str]
    peers: frozenset[int]
    stuck: bool = False


class Connections:
    """Calls from any thread; the work is done in one of its own, at once and in order."""

    def __init__(self, config: Config) -> None:
        self._ranges = (config.workloads4, config.workloads6)
        self._verdicts = Verdicts(config)
        self._places: dict[str, Place] = {}
        self._wake = threading.Condition()
        self._working = threading.Lock()
        self._changed: list[tuple[float, frozenset[int]]] = []
        self._left: list[Backend] = []
        self._thread: threading.Thread | None = None
        self._closed = False
        #: Sockets ended since the agent's start, and what went wrong last.
        self.ended = 0
        self.problem = ""

    def close(self) -> None:
        with self._wake:
            self._closed = True
            self._wake.notify()
        if self._thread is not None:
            self._thread.join()
        self._verdicts.close()

    # Who is where.
    def placed(self, name: str, path: Path, ifindex: int, identities: Iterable[int]) -> None:
        with self._wake:
            self._places[name] = Place(name, path, ifindex, frozenset(identities))

    def removed(self, name: str) -> None:
        with self._wake:
            self._places.pop(name, None)

    def places(self, identities: Iterable[int]) -> list[Place]:
        """Where these identities' replicas are."""
        return self._having(identities)

    def _having(self, identities: Iterable[int]) -> list[Place]:
        wanted = set(identities)
        with self._wake:
            return [p for p in self._places.values() if _ANY in wanted or p.identities & wanted]

    # What happened.
    def changed(self, identities: Iterable[int]) -> None:
        """What is in force for these identities is another now; ``{0}`` for everybody's."""
        affected = frozenset(identities)
        if affected:
            now = time.monotonic()
            self._add(lambda: self._changed.extend([(now, affected), (now + AGAIN, affected)]))

    def left(self, backend: Backend) -> None:
        """A backend is gone for good, or its process is."""
        self._add(lambda: self._left.append(backend))

    def _add(self, note: Callable[[], None]) -> None:
        with self._wake:
            note()
            if self._thread is None and not self._closed:
                self._thread = threading.Thread(target=self._run, name="connections", daemon=True)
                self._thread.start()
            self._wake.notify()

    def _run(self) -> None:
        while True:
            with self._wake:
                affected, left = self._take()
                if self._closed:
                    return
                if not affected and not left:
                    due = [at for at, _ in self._changed]
                    self._wake.wait(max(0.0, min(due) - time.monotonic()) if due else None)
                    continue
            try:
                self.end_forbidden(affected)
                for backend in left:
                    self.end_clients(backend)
                self.problem = ""
            except Exception as error:  # the next change must still be looked at
                log.exception("ending connections failed")
                self.problem = f"connections that may not go on can't be ended: {error}"
                self.changed(affected)
                time.sleep(AGAIN)

    def _take(self) -> tuple[frozenset[int], list[Backend]]:
        now = time.monotonic()
        due = [identities for at, identities in self._changed if at <= now]
        self._changed = [entry for entry in self._changed if entry[0] > now]
        left, self._left = self._left, []
        return frozenset().union(*due), left

    # The work.
    def end_forbidden(self, identities: Iterable[int]) -> int:
        """End what the tables don't allow these identities, at both ends; how many sockets."""
        wanted, number = set(identities), 0
        others: dict[int, set[Ends]] = {}

        def forbidden(socket: Socket) -> bool:
            own = self._verdicts.owner(socket.local)
            if own is None:
                return self._ours(socket.local)  # an address that was taken away
            return (_ANY in wanted or own.identity in wanted) and not self._verdicts.allowed(socket)

        with self._working:
            for place in self._having(wanted):
                for socket in self._end(place, forbidden):
                    number += 1
                    peer = self._verdicts.owner(socket.remote)
                    if peer is not None:
                        others.setdefault(peer.ifindex, set()).add(socket.other_end)
            number += self._end_others(others)
        return self._count(number, "aren't allowed any more")

    def _end_others(self, others: dict[int, set[Ends]]) -> int:
        with self._wake:
            places = {place.ifindex: place for place in self._places.values()}
        number = 0
        for ifindex, ends in others.items():
            if ifindex in places:
                number += len(self._end(places[ifindex], partial(_among, ends)))
        return number

    def end_clients(self, backend: Backend) -> int:
        """End the sockets that wait for a backend which won't answer; how many."""
        raw = {layout.pack_address(address) for address in backend.addresses}
        with self._working:
            delivered = set() if backend.stuck else self._delivering(backend.name)

            def waiting(socket: Socket) -> bool:
                if socket.remote not in raw or socket.local in raw:
                    return False
                if socket.protocol == sockets.UDP:
                    return True
                return socket.state in _WAITING and socket.ends not in delivered

            number = sum(len(self._end(place, waiting)) for place in self._having(backend.peers))
            if backend.stuck:
                for place in self._named(backend.name):
                    number += len(self._end(place, lambda s: s.local in raw and s.remote not in raw))
        return self._count(number, f"waited for {backend.name}")

    def _delivering(self, name: str) -> set[Ends]:
        found: set[Ends] = set()
        for place in self._named(name):
            try:
                found |= {s.other_end for s in sockets.listing(place.path, (sockets.TCP,), _DELIVERING)}
            except OSError:
                continue
        return found

    def delivering(self, name: str) -> bool:
        """Whether the kernel still has something to deliver that ended processes of a namespace wrote."""
        return bool(self._delivering(name))

    def _named(self, name: str) -> list[Place]:
        with self._wake:
            return [self._places[name]] if name in self._places else []

    def _ours(self, address: bytes) -> bool:
        text = layout.unpack_address(address)
        return bool(text) and any(ipaddress.ip_address(text) in network for network in self._ranges)

    def _end(self, place: Place, wanted: Callable[[Socket], bool]) -> list[Socket]:
        try:
            return sockets.end(place.path, wanted)
        except FileNotFoundError:
            return []  # the namespace is gone, with all its sockets

    def _count(self, number: int, why: str) -> int:
        self.ended += number
        if number:
            log.info("%s sockets ended: they %s", number, why)
        return number
