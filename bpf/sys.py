"""The bpf(2) system call, as far as an agent needs it: no compiler, no library.

bcc's compiler stays resident with over 100 MB, so the loader is a short-lived process and everybody
else opens what it pinned through this module. Layouts of ``union bpf_attr``: ``linux/bpf.h``.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path

_NUMBER = {"x86_64": 321, "aarch64": 280}[platform.machine()]
_libc = ctypes.CDLL(None, use_errno=True)

MAP_CREATE = 0
MAP_LOOKUP, MAP_UPDATE, MAP_DELETE, MAP_NEXT_KEY = 1, 2, 3, 4
OBJ_PIN, OBJ_GET, PROG_ATTACH, PROG_DETACH, PROG_TEST_RUN = 6, 7, 8, 9, 10
OBJ_INFO, PROG_QUERY, PROG_BY_ID, MAP_BY_ID = 15, 16, 13, 14
MAP_LOOKUP_AND_DELETE = 21
MAP_LOOKUP_BATCH, MAP_DELETE_BATCH = 24, 27

ALLOW_MULTI, REPLACE = 2, 4
_NO_EXIST = 1
#: Entries that one call takes or gives.
_BATCH = 4096


def _call(command: int, attributes: bytes) -> int:
    """Run a command; raises ``OSError`` with the kernel's errno."""
    buffer = ctypes.create_string_buffer(attributes, max(len(attributes), 128))
    result = _libc.syscall(_NUMBER, command, buffer, len(buffer))
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def _address(data) -> int:
    return ctypes.addressof(data)


def object_get(path: Path) -> int:
    """A file descriptor of a pinned map or program."""
    name = ctypes.create_string_buffer(str(path).encode())
    return _call(OBJ_GET, struct.pack("=QII", _address(name), 0, 0))


def object_pin(descriptor: int, path: Path) -> None:
    """Pin a map or program; it then outlives every process."""
    name = ctypes.create_string_buffer(str(path).encode())
    _call(OBJ_PIN, struct.pack("=QII", _address(name), descriptor, 0))


class Map:
    """A pinned map with keys and values of fixed sizes, in bytes.

    ``copies``: values of per-CPU maps come as one after another for each possible CPU.
    """

    def __init__(self, path: Path | int, key_size: int, value_size: int, copies: int = 1) -> None:
        """``path``: where the map is pinned, or a descriptor, which this then closes."""
        self.name = f"of descriptor {path}" if isinstance(path, int) else path.name
        self.descriptor = path if isinstance(path, int) else object_get(path)
        self.key_size, self.value_size = key_size, value_size
        actual = info(self.descriptor)
        if (actual["key_size"], actual["value_size"]) != (key_size, value_size):
            self.close()
            raise LayoutError(
                f"map {self.name}: the kernel has {actual['key_size']}/{actual['value_size']} bytes, "
                f"this program expects {key_size}/{value_size}"
            )
        self.max_entries = actual["max_entries"]
        self._key = ctypes.create_string_buffer(key_size)
        self._value = ctypes.create_string_buffer(value_size * copies)

    def close(self) -> None:
        os.close(self.descriptor)

    def again(self) -> Map:
        """The same map for another thread, by the same descriptor, which stays this one's."""
        made = object.__new__(Map)
        made.__dict__ |= self.__dict__
        made._key = ctypes.create_string_buffer(len(self._key))
        made._value = ctypes.create_string_buffer(len(self._value))
        return made

    def _attributes(self, flags: int = 0) -> bytes:
        return struct.pack("=IIQQQ", self.descriptor, 0, _address(self._key), _address(self._value), flags)

    def get(self, key: bytes) -> bytes | None:
        """The value, or None."""
        self._key.raw = key
        try:
            _call(MAP_LOOKUP, self._attributes())
        except OSError as error:
            if error.errno == errno.ENOENT:
                return None
            raise
        return self._value.raw

    def set(self, key: bytes, value: bytes) -> None:
        """Insert or overwrite. A full map raises ``OSError`` with E2BIG or ENOSPC."""
        self._key.raw = key
        self._value.raw = value
        _call(MAP_UPDATE, self._attributes())

    def add(self, key: bytes, value: bytes) -> bool:
        """Insert unless the key is there already; whether it was inserted."""
        self._key.raw = key
        self._value.raw = value
        try:
            _call(MAP_UPDATE, self._attributes(_NO_EXIST))
        except OSError as error:
            if error.errno == errno.EEXIST:
                return False
            raise
        return True

    def take(self, key: bytes) -> bytes | None:
        """Remove a key and return its value, in one step."""
        self._key.raw = key
        try:
            _call(MAP_LOOKUP_AND_DELETE, self._attributes())
        except OSError as error:
            if error.errno == errno.ENOENT:
                return None
            raise
        return self._value.raw

    def delete(self, key: bytes) -> bool:
        """Whether it was there."""
        self._key.raw = key
        try:
            # The kernel insists that everything after the key is zero.
            _call(MAP_DELETE, struct.pack("=IIQ", self.descriptor, 0, _address(self._key)))
        except OSError as error:
            if error.errno == errno.ENOENT:
                return False
            raise
        return True

    def delete_all(self, keys: Sequence[bytes]) -> None:
        """Remove those that are there, thousands in one call."""
        packed = ctypes.create_string_buffer(b"".join(keys))
        first = 0
        while first < len(keys):
            count = min(_BATCH, len(keys) - first)
            number, done = self._batch(
                MAP_DELETE_BATCH, 0, 0, _address(packed) + first * self.key_size, 0, count
            )
            first += done
            if number and number != errno.ENOENT:
                break
            first += number == errno.ENOENT  # it stops at one that isn't there
        for key in keys[first:]:  # a kernel that knows no batches of this kind of map
            self.delete(key)

    def _batch(self, command: int, *attributes: int) -> tuple[int, int]:
        """Where from, where to, keys, values, how many of them → the kernel's errno, and how many it did."""
        *places, count = attributes
        buffer = ctypes.create_string_buffer(
            struct.pack("=QQQQIIQQ", *places, count, self.descriptor, 0, 0), 128
        )
        number = 0 if _libc.syscall(_NUMBER, command, buffer, len(buffer)) >= 0 else ctypes.get_errno()
        # What it refuses as a whole it doesn't count.
        known = number in (0, errno.ENOENT)
        return number, struct.unpack_from("=I", buffer, 32)[0] if known else 0

    def _in_batches(self) -> list[tuple[bytes, bytes]] | None:
        """All entries, thousands in one call; None if the kernel can't give them so."""
        if len(self._value) != self.value_size:
            return None  # a value for each CPU
        found: list[tuple[bytes, bytes]] = []
        keys, values = (ctypes.create_string_buffer(_BATCH * n) for n in (self.key_size, self.value_size))
        place = ctypes.create_string_buffer(max(self.key_size, 8))
        number, begin = 0, 0
        while not number:
            number, count = self._batch(
                MAP_LOOKUP_BATCH, begin, _address(place), _address(keys), _address(values), _BATCH
            )
            if number not in (0, errno.ENOENT):
                return None
            begin = _address(place)
            cut = (
                [whole[n : n + size] for n in range(0, count * size, size)]
                for whole, size in ((keys.raw, self.key_size), (values.raw, self.value_size))
            )
            found += zip(*cut, strict=True)
        return found

    def keys(self) -> list[bytes]:
        """All keys at about this moment."""
        found: list[bytes] = []
        following = ctypes.create_string_buffer(self.key_size)
        previous = None
        # A key that is deleted meanwhile restarts the walk; the bound keeps it finite.
        seen: set[bytes] = set()
        for _ in range(2 * self.max_entries + 16):
            pointer = 0
            if previous is not None:
                self._key.raw = previous
                pointer = _address(self._key)
            try:
                _call(
                    MAP_NEXT_KEY, struct.pack("=IIQQQ", self.descriptor, 0, pointer, _address(following), 0)
                )
            except OSError as error:
                if error.errno == errno.ENOENT:
                    break
                raise
            previous = following.raw
            if previous not in seen:
                seen.add(previous)
                found.append(previous)
        return found

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        """All entries at about this moment; they may be changed meanwhile."""
        if (found := self._in_batches()) is not None:
            yield from found
            return
        for key in self.keys():
            value = self.get(key)
            if value is not None:
                yield key, value


def map_create(kind: int, key_size: int, value_size: int, entries: int, flags: int = 0) -> int:
    """A descriptor of a new map without a name; it lives as long as something refers to it."""
    return _call(MAP_CREATE, struct.pack("=IIIII", kind, key_size, value_size, entries, flags))


def map_by_id(identifier: int) -> int:
    """A descriptor of a map, as of one that another map holds."""
    return _call(MAP_BY_ID, struct.pack("=II", identifier, 0))


def possible_cpus() -> int:
    """How many values a per-CPU map has for each key."""
    ranges = Path("/sys/devices/system/cpu/possible").read_text().strip().split(",")
    return sum(int(r.split("-")[-1]) - int(r.split("-")[0]) + 1 for r in ranges)


class LayoutError(RuntimeError):
    """A pinned object isn't what this version of the program expects."""


def info(descriptor: int) -> dict[str, int]:
    """Type, id and sizes of a map (programs: type and id only)."""
    buffer = ctypes.create_string_buffer(256)
    _call(OBJ_INFO, struct.pack("=IIQ", descriptor, len(buffer), _address(buffer)))
    kind, identifier, key_size, value_size, entries, flags = struct.unpack_from("=IIIIII", buffer.raw)
    return {
        "type": kind,
        "id": identifier,
        "key_size": key_size,
        "value_size": value_size,
        "max_entries": entries,
        "flags": flags,
    }


def attach_cgroup(cgroup: int, program: int, kind: int, replace: int | None = None) -> None:
    """Attach beside others' programs, or in place of ``replace`` without a gap."""
    flags = ALLOW_MULTI | (REPLACE if replace is not None else 0)
    _call(PROG_ATTACH, struct.pack("=IIIII", cgroup, program, kind, flags, replace or 0))


def detach_cgroup(cgroup: int, program: int, kind: int) -> None:
    _call(PROG_DETACH, struct.pack("=IIII", cgroup, program, kind, 0))


def attached(cgroup: int, kind: int) -> list[int]:
    """Ids of the programs attached to a cgroup."""
    ids = (ctypes.c_uint32 * 64)()
    attributes = struct.pack("=IIIIQI", cgroup, kind, 0, 0, ctypes.addressof(ids), len(ids))
    buffer = ctypes.create_string_buffer(attributes, 128)
    if _libc.syscall(_NUMBER, PROG_QUERY, buffer, len(buffer)) < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return list(ids[: struct.unpack_from("=I", buffer.raw, 24)[0]])


def program_by_id(identifier: int) -> int:
    """A descriptor of a loaded program."""
    return _call(PROG_BY_ID, struct.pack("=II", identifier, 0))


def test_run(program: int, packet: bytes, context: bytes = b"") -> tuple[int, bytes]:
    """Run a tc program on a packet; its return value and the packet afterwards.

    ``context`` is a ``struct __sk_buff`` of which the kernel accepts a few fields.
    """
    data = ctypes.create_string_buffer(packet, len(packet))
    out = ctypes.create_string_buffer(len(packet) + 256)
    context_in = ctypes.create_string_buffer(context, len(context)) if context else None
    attributes = struct.pack(
        "=IIIIQQIIIIQQ",
        program,
        0,
        len(packet),
        len(out),
        _address(data),
        _address(out),
        1,
        0,
        len(context),
        0,
        _address(context_in) if context_in else 0,
        0,
    )
    buffer = ctypes.create_string_buffer(attributes, 128)
    if _libc.syscall(_NUMBER, PROG_TEST_RUN, buffer, len(buffer)) < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    _, result, _, size = struct.unpack_from("=IIII", buffer.raw)
    return result, out.raw[:size]


BTF_BY_ID = 19
#: Offsets of ``btf_id`` in ``struct bpf_prog_info``.
_PROGRAM_BTF = 128


def type_information(program: int) -> bytes:
    """BTF of the object that a program came from, as the kernel keeps it; ``OSError`` if there is none."""
    about = ctypes.create_string_buffer(256)
    _call(OBJ_INFO, struct.pack("=IIQ", program, len(about), _address(about)))
    (identifier,) = struct.unpack_from("=I", about.raw, _PROGRAM_BTF)
    if not identifier:
        raise OSError(errno.ENOENT, "the program has no type information")
    descriptor = _call(BTF_BY_ID, struct.pack("=I", identifier))
    try:
        size = 4096
        while True:
            raw = ctypes.create_string_buffer(size)
            wanted = ctypes.create_string_buffer(struct.pack("=QIIQII", _address(raw), size, 0, 0, 0, 0), 32)
            _call(OBJ_INFO, struct.pack("=IIQ", descriptor, len(wanted), _address(wanted)))
            (actual,) = struct.unpack_from("=I", wanted.raw, 8)
            if actual <= size:
                return raw.raw[:actual]
            size = actual
    finally:
        os.close(descriptor)
