"""Whether the tables in force allow a connection: the kernel's judgement, for a socket instead of a packet.

It asks the same maps in the same order as ``bpf/lib/policy.h`` does, and as a packet in the middle of a
flow that was forgotten it is allowed if either side may have opened it. A socket whose remote end
never leaves its namespace is its own business.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

from bpf import layout, loader
from bpf import sys as bpf
from bpf.reasons import CODES
from bpf.tables import DENY, EGRESS, INGRESS
from dataplane import addresses
from dataplane.agent.sockets import Socket
from infra.config import Config

_MAPS = ("ipcache", "identities", "policy", "external", "learned", "floor_prefixes")
_ANY = 0
_MAPPED = b"\0" * 10 + b"\xff\xff"
_LOOPBACK4, _LOOPBACK6 = ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_address("::1")


@dataclass(frozen=True)
class Owner:
    """Who has an address of the platform; ``ifindex`` is the host's side of its namespace."""

    identity: int
    ifindex: int


class Verdicts:
    """Reads the maps of an installation. One instance for each thread."""

    def __init__(self, config: Config) -> None:
        """Raises ``OSError`` if the kernel side isn't loaded."""
        folder = loader.pins(config) / "maps"
        self._maps = {
            name: bpf.Map(folder / name, key.size, value.size)
            for name, (key, value) in layout.MAPS.items()
            if name in _MAPS
        }
        self._services: list = [config.services4, config.services6]

    def close(self) -> None:
        for opened in self._maps.values():
            opened.close()

    def owner(self, address: bytes) -> Owner | None:
        """Whose address it is; None if it is nobody's on this platform."""
        raw = self._maps["ipcache"].get(address)
        return Owner(*layout.OWNER.unpack(raw)) if raw else None

    def allowed(self, socket: Socket) -> bool:
        """Whether the identity at the local address may have this connection, whoever opened it."""
        if _loopback(socket.remote) or _loopback(socket.local):
            return True
        own, peer = self.owner(socket.local), self.owner(socket.remote)
        if own is None or (peer is not None and peer.ifindex == own.ifindex):
            return True
        remote = ipaddress.ip_address(layout.unpack_address(socket.remote) or "::")
        if any(remote in network for network in self._services):
            # Never translated, so nothing ever flowed.
            return True
        if self._egress(own.identity, peer, socket):
            return True
        other = peer.identity if peer else self._stranger(socket.remote)
        return self._identity(own.identity, other, socket.local_port, socket.protocol, INGRESS)

    def _egress(self, local: int, peer: Owner | None, socket: Socket) -> bool:
        if peer is not None:
            return self._identity(local, peer.identity, socket.remote_port, socket.protocol, EGRESS)
        return self._external(local, socket.remote, socket.remote_port, socket.protocol)

    def _epoch(self, identity: int) -> tuple[int, int] | None:
        """(epoch, flags) of what is in force for an identity."""
        raw = self._maps["identities"].get(layout.U32.pack(identity))
        if raw is None:
            return None
        epoch, _, flags = layout.IDENTITY.unpack(raw)
        return epoch, flags

    def _identity(self, local: int, remote: int, port: int, protocol: int, direction: int) -> bool:
        in_force = self._epoch(local)
        if in_force is None:
            return False
        found = [
            self._maps["policy"].get(
                layout.POLICY_KEY.pack(local, in_force[0], peer, number, protocol, direction)
            )
            for peer in (remote, _ANY)
            for number in (port, 0)
        ]
        return _settled(found)

    def _external(self, local: int, address: bytes, port: int, protocol: int) -> bool:
        in_force = self._epoch(local)
        if in_force is None:
            return False
        epoch, flags = in_force
        if not flags & layout.IDENTITY_ABOVE_FLOOR and self._floor(address):
            return False
        bits = layout.EXTERNAL_FIXED_BITS + 128
        family = layout.EXTERNAL_V4 if address.startswith(_MAPPED) else 0
        found = [
            self._maps["external"].get(
                layout.EXTERNAL_KEY.pack(bits, local, epoch, number, protocol | family, address)
            )
            for number in (port, 0)
        ]
        if not flags & layout.IDENTITY_ABOVE_FLOOR and not any(found):
            key = layout.LEARNED_KEY.pack(local, port, protocol, address)
            found.append(self._maps["learned"].get(key))
        return _settled(found)

    def _floor(self, address: bytes) -> int:
        """The reason for which nobody may reach an address; 0 if there is none."""
        raw = self._maps["floor_prefixes"].get(layout.FLOOR_KEY.pack(128, address))
        return layout.U32.unpack(raw)[0] if raw else 0

    def _stranger(self, address: bytes) -> int:
        node = self._floor(address) == CODES["NODE"]
        return addresses.IDENTITY_NODE if node else addresses.IDENTITY_WORLD


def _settled(found: list[bytes | None]) -> bool:
    """Deny beats allow and audit, both of which let pass."""
    verdicts = {layout.RULE.unpack(raw)[1] for raw in found if raw}
    return bool(verdicts) and DENY not in verdicts


def _loopback(address: bytes) -> bool:
    text = ipaddress.ip_address(layout.unpack_address(address) or "::")
    return text in _LOOPBACK4 if text.version == 4 else text == _LOOPBACK6
