"""A reader of frames that shares nothing with the programs: what a receiver would take a frame for."""

from __future__ import annotations

import ipaddress
import struct
from typing import NamedTuple

_OPTIONS, _ROUTING, _FRAGMENT = {0, 60}, 43, 44


class Seen(NamedTuple):
    source: str
    destination: str
    protocol: int
    port: int
    is_later_fragment: bool


def understood(frame: bytes) -> Seen | None:
    """None for what no receiver would take for a TCP or UDP packet, or for a later part of one."""
    (kind,) = struct.unpack_from("!H", frame, 12)
    if kind == 0x0800:
        return _four(frame[14:])
    return _six(frame[14:]) if kind == 0x86DD else None


def _four(packet: bytes) -> Seen | None:
    if len(packet) < 20 or packet[0] != 0x45:
        return None
    ends = [str(ipaddress.IPv4Address(packet[at : at + 4])) for at in (12, 16)]
    (fragment,) = struct.unpack_from("!H", packet, 6)
    return _transport(ends, packet[9], packet[20:], bool(fragment & 0x1FFF))


def _six(packet: bytes) -> Seen | None:
    if len(packet) < 40 or packet[0] >> 4 != 6:
        return None
    ends = [str(ipaddress.IPv6Address(packet[at : at + 16])) for at in (8, 24)]
    following, rest, later = packet[6], packet[40:], False
    while following in _OPTIONS or following in (_ROUTING, _FRAGMENT):
        if len(rest) < 8 or following == _ROUTING or later:
            return None
        size = 8
        if following == _FRAGMENT:
            later = bool(struct.unpack_from("!H", rest, 2)[0] & 0xFFF8)
        else:
            size = (rest[1] + 1) * 8
        following, rest = rest[0], rest[size:]
        if later:
            break
    return _transport(ends, following, rest, later)


def _transport(ends: list[str], protocol: int, rest: bytes, later: bool) -> Seen | None:
    if later:
        return Seen(ends[0], ends[1], protocol, 0, True)
    if protocol not in (6, 17) or len(rest) < 4:
        return None
    return Seen(ends[0], ends[1], protocol, struct.unpack_from("!H", rest, 2)[0], False)
