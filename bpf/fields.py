"""Names of the fields behind the mirrors of ``layout.py``, and the comparison with compiled types.

A mirror packs by position, so two swapped fields of one size would go unnoticed by sizes alone: the
names here say which field a position is meant to be, and ``differences`` compares names, offsets and
sizes with the type information of the compiled object.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from itertools import zip_longest

from bpf import btf, layout, source

#: C structure → its members in the order in which ``layout.py`` packs them.
NAMES: dict[str, str] = {
    "config": "workloads4 workloads4_mask services4 services4_mask workloads6 services6 generation",
    "endpoint": "id flags mac host_mac bridge",
    "caller": "identity ifindex flags",
    "owner": "identity ifindex",
    "identity": "epoch cell flags",
    "limit": "bytes burst new_connections connections",
    "usage": "bandwidth new_connections connections rows rows_since life",
    "policy_key": "identity epoch remote port protocol direction",
    "rule": "rule verdict",
    "external_key": "prefixlen identity epoch port protocol address",
    "learned_key": "identity port protocol address",
    "floor_key": "prefixlen address",
    "service_key": "consumer address port protocol",
    "service": "id count consistent affinity",
    "backend_key": "service slot",
    "backend": "address port",
    "member_key": "service port address",
    "affinity_key": "cookie service",
    "affinity": "last address port pad",
    "flow_id": "local remote local_port remote_port protocol",
    "flow_state": "last epoch remote rule local generation ingress initiator flags audit pad rest",
    "edge": "source destination remote port protocol direction verdict reason pad",
    "edge_count": "packets bytes last rule pad",
    "address": "w",
}


def mirrors() -> dict[str, struct.Struct]:
    """C type of each key and value that user space packs → its mirror in ``layout.py``."""
    found: dict[str, struct.Struct] = {}
    for declared in source.maps().values():
        if declared.name in layout.MAPS:
            key, value = layout.MAPS[declared.name]
            found[declared.key], found[declared.value] = key, value
        if declared.inner and declared.name in layout.INNER:
            found[declared.inner[1]], found[declared.inner[2]] = layout.INNER[declared.name][3:5]
    return found


def items(mirror: struct.Struct) -> list[tuple[int, int]]:
    """(offset, size) of each value that a mirror packs; it has no padding of its own."""
    found, at, number = [], 0, ""
    for letter in mirror.format.lstrip("=<>!@"):
        if letter.isdigit():
            number += letter
            continue
        sizes = [int(number or 1)] if letter == "s" else [struct.calcsize("=" + letter)] * int(number or 1)
        number = ""
        for size in sizes:
            found.append((at, size))
            at += size
    return found


def _places(types: btf.Types, fields: Iterable[btf.Field], at: int, whole: set[tuple[int, int]]) -> list:
    """The members as a mirror sees them: one that it packs as one value is one, others are taken apart."""
    found: list[tuple[int, int]] = []
    for field in fields:
        place = (at + field.offset, field.size)
        parts = [] if place in whole else types.members(field.type)
        found += _places(types, parts, place[0], whole) if parts else [place]
    return found


def differences(
    types: btf.Types, wanted: dict[str, struct.Struct] | None = None, names: dict[str, str] | None = None
) -> list[str]:
    """What differs between the compiled structures and their mirrors, as sentences; none if all is well.

    ``wanted``: C type → mirror, by default those of ``layout.py``; without ``names``, names aren't compared.
    """
    found = []
    for kind, mirror in (mirrors() if wanted is None else wanted).items():
        _, _, name = kind.partition("struct ")
        if not name:
            if mirror.size != {"__u32": 4, "__u64": 8, "int": 4}[kind]:
                found.append(f"{kind} has {mirror.size} bytes in Python")
            continue
        try:
            size, fields = types.structure(name)
        except KeyError:
            found.append(f"struct {name} isn't in the compiled object's type information")
            continue
        if size != mirror.size:
            found.append(f"struct {name} has {size} bytes in C and {mirror.size} in Python")
            continue
        whole = items(mirror)
        if (places := _places(types, fields, 0, set(whole))) != whole:
            at = next((pair[0] for pair in zip_longest(places, whole) if pair[0] != pair[1]), None)
            owner = [f.name for f in fields if at and f.offset <= at[0]][-1:] or ["its end"]
            found.append(f"struct {name}: from {owner[0]} on C and Python have different offsets or sizes")
        if names is not None and names.get(name, "").split() != [field.name for field in fields]:
            found.append(f"struct {name}: its fields are called {' '.join(f.name for f in fields)} in C")
    return found
