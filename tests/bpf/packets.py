"""Packets by hand, with right checksums where the kernel looks at them."""

from __future__ import annotations

import ipaddress
import struct

ETH_IP, ETH_IPV6, ETH_ARP = 0x0800, 0x86DD, 0x0806


def checksum(data: bytes) -> int:
    if len(data) % 2:
        data += b"\0"
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def ethernet(source: bytes, destination: bytes, kind: int, payload: bytes) -> bytes:
    return destination + source + struct.pack("!H", kind) + payload


def ipv4(
    source: str,
    destination: str,
    protocol: int,
    payload: bytes,
    *,
    fragment: int = 0,
    ident: int = 7,
    options: bytes = b"",
) -> bytes:
    """``fragment`` is the whole field: 0x2000 more fragments, low 13 bits the offset in 8 bytes."""
    length = 20 + len(options)
    head = struct.pack(
        "!BBHHHBBH4s4s",
        0x40 | length // 4,
        0,
        length + len(payload),
        ident,
        fragment,
        64,
        protocol,
        0,
        ipaddress.IPv4Address(source).packed,
        ipaddress.IPv4Address(destination).packed,
    )
    whole = head + options
    value = checksum(whole)
    return whole[:10] + struct.pack("!H", value) + whole[12:] + payload


def ipv6(source: str, destination: str, following: int, payload: bytes) -> bytes:
    return (
        struct.pack("!IHBB", 6 << 28, len(payload), following, 64)
        + ipaddress.IPv6Address(source).packed
        + ipaddress.IPv6Address(destination).packed
        + payload
    )


def extension(following: int, body: bytes = b"\x01\x04\0\0\0\0") -> bytes:
    """A hop-by-hop, destination or routing header of 8 bytes."""
    return struct.pack("!BB", following, 0) + body


def fragment6(following: int, offset: int, more: bool, ident: int = 7) -> bytes:
    return struct.pack("!BBHI", following, 0, (offset & 0xFFF8) | more, ident)


def tcp(source: int, destination: int, flags: int = 0x02) -> bytes:
    return struct.pack("!HHIIBBHHH", source, destination, 1, 0, 0x50, flags, 1024, 0, 0)


def udp(source: int, destination: int, payload: bytes = b"hello") -> bytes:
    return struct.pack("!HHHH", source, destination, 8 + len(payload), 0) + payload
