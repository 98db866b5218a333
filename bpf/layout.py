"""The structures of ``lib/types.h`` as user space packs them. The loader compares both.

Every structure is a ``struct.Struct`` in native byte order without padding of its own; addresses
are 16 bytes as ``ipaddress`` packs them, IPv4 as ::ffff:a.b.c.d.
"""

from __future__ import annotations

import ipaddress
import struct
from functools import lru_cache

CONFIG = struct.Struct("=4s4s4s4s8s8sI")
ENDPOINT = struct.Struct("=II6s6sI")
CALLER = struct.Struct("=III")
OWNER = struct.Struct("=II")
IDENTITY = struct.Struct("=III")
LIMIT = struct.Struct("=QQQQII")
USAGE = struct.Struct("=QQQQQQQQ")
POLICY_KEY = struct.Struct("=IIIHBB")
RULE = struct.Struct("=II")
EXTERNAL_KEY = struct.Struct("=IIIHH16s")
LEARNED_KEY = struct.Struct("=IHH16s")
FLOOR_KEY = struct.Struct("=I16s")
SERVICE_KEY = struct.Struct("=I16sHH")
SERVICE = struct.Struct("=IIII")
BACKEND_KEY = struct.Struct("=II")
BACKEND = struct.Struct("=16sI")
MEMBER_KEY = struct.Struct("=II16s")
AFFINITY_KEY = struct.Struct("=QI16sHH")
AFFINITY = struct.Struct("=Q16sII")
FLOW_ID = struct.Struct("=16s16sHHI")
FLOW_STATE = struct.Struct("=QIIIIIIBBBBI")
EDGE = struct.Struct("=II16sHBBBBH")
EDGE_COUNT = struct.Struct("=QQQII")
U32 = struct.Struct("=I")
U64 = struct.Struct("=Q")

#: map → (key, value)
MAPS: dict[str, tuple[struct.Struct, struct.Struct]] = {
    "config": (U32, CONFIG),
    "endpoints": (U32, ENDPOINT),
    "callers": (U64, CALLER),
    "ipcache": (struct.Struct("=16s"), OWNER),
    "underlays": (U32, U32),
    "identities": (U32, IDENTITY),
    "policy": (POLICY_KEY, RULE),
    "external": (EXTERNAL_KEY, RULE),
    "floor_prefixes": (FLOOR_KEY, U32),
    "services": (SERVICE_KEY, SERVICE),
    "backends": (BACKEND_KEY, BACKEND),
    "members": (MEMBER_KEY, U32),
    "affinity": (AFFINITY_KEY, AFFINITY),
    "learned": (LEARNED_KEY, RULE),
    "limits": (U32, LIMIT),
    "usages": (U32, USAGE),
    "conntrack": (U32, U32),
    "edges": (EDGE, EDGE_COUNT),
    "counters": (U32, U64),
}

PER_CPU = frozenset({"counters"})

COUNTERS = (
    "conntrack full",
    "fragments full",
    "edges full",
    "socket storage failed",
    "backend missing",
    "configuration missing",
    "rewrite failed",
)
#: Protocol numbers of `FLOW_ID` above this are fragments, not flows.
FLOW_FRAGMENT = 0x100
#: Kinds of the inner maps, their flags and sizes: name → (type, flags, entries, key, value).
INNER: dict[str, tuple[int, int, int, struct.Struct, struct.Struct]] = {
    "conntrack": (9, 0, 4096, FLOW_ID, FLOW_STATE),  # BPF_MAP_TYPE_LRU_HASH
}
#: In `EXTERNAL_KEY`'s protocol for networks of IPv4, whose addresses are kept as IPv6's mapped ones.
EXTERNAL_V4 = 0x100
IDENTITY_ABOVE_FLOOR, IDENTITY_LIMITED, IDENTITY_METERED = 1, 2, 4
CALLER_UNTRANSLATED = 1
ENDPOINT_FOREIGN = 1
#: Bits before the address in EXTERNAL_KEY's prefix length.
EXTERNAL_FIXED_BITS = 96


@lru_cache(maxsize=65536)
def pack_address(text: str) -> bytes:
    """16 bytes of an address in text form."""
    address = ipaddress.ip_address(text)
    if address.version == 4:
        return b"\0" * 10 + b"\xff\xff" + address.packed
    return address.packed


def unpack_address(raw: bytes) -> str:
    """Text form of 16 bytes; "" for all zeros."""
    if raw == bytes(16):
        return ""
    address = ipaddress.IPv6Address(raw)
    return str(address.ipv4_mapped or address)


def pack_network(text: str) -> tuple[int, bytes]:
    """(prefix length among 128 bits, 16 bytes) of a network in text form."""
    network = ipaddress.ip_network(text, strict=False)
    if network.version == 4:
        return network.prefixlen + 96, pack_address(str(network.network_address))
    return network.prefixlen, network.network_address.packed
