"""Reads type information (BTF) as the kernel keeps it of a loaded program.

The format: ``Documentation/bpf/btf.rst`` of Linux. Only what layouts need: names, members, offsets
and sizes of structures.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from bpf import sys as bpf

_HEADER = struct.Struct("=HBBIIIII")
_MAGIC = 0xEB9F
_INT, _PTR, _ARRAY, _STRUCT, _UNION, _ENUM, _TYPEDEF, _VOLATILE, _CONST, _RESTRICT = (
    1,
    2,
    3,
    4,
    5,
    6,
    8,
    9,
    10,
    11,
)
_FUNC_PROTO, _VAR, _DATASEC, _DECL_TAG, _TYPE_TAG, _ENUM64 = 13, 14, 15, 17, 18, 19
#: Bytes that follow a type: kind → (fixed, for each member).
_EXTRA = {
    _INT: (4, 0), _ARRAY: (12, 0), _STRUCT: (0, 12), _UNION: (0, 12), _ENUM: (0, 8), _FUNC_PROTO: (0, 8),
    _VAR: (4, 0), _DATASEC: (0, 12), _DECL_TAG: (4, 0), _ENUM64: (0, 12),
}  # fmt: skip
_ALIASES = (_TYPEDEF, _VOLATILE, _CONST, _RESTRICT, _TYPE_TAG)


class Field(NamedTuple):
    """A member of a structure; offset and size in bytes. ``type`` is its number in the same types."""

    name: str
    offset: int
    size: int
    type: int


class _Type(NamedTuple):
    name: str
    kind: int
    size: int  # or the number of the type that it refers to
    extra: bytes


class Types:
    """All types of one object. Raises ``ValueError`` if the data isn't BTF."""

    def __init__(self, raw: bytes) -> None:
        magic, _, _, header, types, types_size, strings, _ = _HEADER.unpack_from(raw)
        if magic != _MAGIC:
            raise ValueError("this isn't BTF of this machine's byte order")
        self._strings = raw[header + strings :]
        self._types = [_Type("void", 0, 0, b"")]
        at, end = header + types, header + types + types_size
        while at < end:
            name, info, size = struct.unpack_from("=III", raw, at)
            kind, members = info >> 24 & 0x1F, info & 0xFFFF
            fixed, each = _EXTRA.get(kind, (0, 0))
            length = fixed + each * members
            self._types.append(_Type(self._string(name), kind, size, raw[at + 12 : at + 12 + length]))
            at += 12 + length

    def _string(self, offset: int) -> str:
        return self._strings[offset : self._strings.index(b"\0", offset)].decode()

    def _plain(self, number: int) -> _Type:
        """The type behind names and qualifiers."""
        found = self._types[number]
        return self._plain(found.size) if found.kind in _ALIASES else found

    def size(self, number: int) -> int:
        """Bytes of a type."""
        found = self._plain(number)
        if found.kind == _ARRAY:
            element, _, count = struct.unpack("=III", found.extra)
            return self.size(element) * count
        return 8 if found.kind == _PTR else found.size

    def structure(self, name: str) -> tuple[int, list[Field]]:
        """Size and members of ``struct name``. Raises ``KeyError`` if nothing in the object uses it."""
        for found in self._types:
            if found.kind == _STRUCT and found.name == name:
                return found.size, self._fields(found)
        raise KeyError(name)

    def members(self, number: int) -> list[Field]:
        """Members of a structure, elements of an array; none of anything else."""
        found = self._plain(number)
        if found.kind == _ARRAY:
            element, _, count = struct.unpack("=III", found.extra)
            size = self.size(element)
            return [Field(str(i), i * size, size, element) for i in range(count)]
        return self._fields(found) if found.kind == _STRUCT else []

    def _fields(self, found: _Type) -> list[Field]:
        fields = []
        for name, number, bits in struct.iter_unpack("=III", found.extra):
            fields.append(Field(self._string(name), (bits & 0xFFFFFF) // 8, self.size(number), number))
        return fields


def of_program(descriptor: int) -> Types:
    """Types of the object that a loaded program came from. Raises ``OSError`` if it came without."""
    return Types(bpf.type_information(descriptor))
