"""XDP by links: a pin keeps the program on its interface, taking the pin away takes it off.

A link never replaces what somebody else attached, nor can it be replaced; the kernel sees to both.
"""

from __future__ import annotations

import ctypes
import errno
import struct
from pathlib import Path

from bpf import sys as bpf

_LINK_CREATE, _LINK_UPDATE = 28, 29
_XDP = 37
#: The driver's own hook first, the generic one where the driver has none that works.
_MODES = {"native": 4, "generic": 2}


class Occupied(RuntimeError):
    """Another XDP program is on the interface; it stays there."""


def attach_xdp(program: int, ifindex: int) -> tuple[int, str]:
    """A new link (descriptor) and its mode. Raises ``Occupied`` or ``OSError``."""
    last: OSError | None = None
    for mode, flag in _MODES.items():
        attributes = struct.pack("=IIII", program, ifindex, _XDP, flag)
        try:
            return bpf._call(_LINK_CREATE, attributes), mode
        except OSError as error:
            if error.errno in (errno.EBUSY, errno.EEXIST):
                raise Occupied("another XDP program is on the interface") from error
            last = error
    assert last is not None
    raise last


def update(link: int, program: int) -> None:
    """Another program in place of the link's, without a gap."""
    bpf._call(_LINK_UPDATE, struct.pack("=IIII", link, program, 0, 0))


def interface(link: int) -> tuple[int, int]:
    """(interface index, id of the program) of an XDP link; index 0 if the interface is gone."""
    buffer = ctypes.create_string_buffer(256)
    address = ctypes.addressof(buffer)
    bpf._call(bpf.OBJ_INFO, struct.pack("=IIQ", link, len(buffer), address))
    _, _, program, _, ifindex = struct.unpack_from("=IIIII", buffer.raw)
    return ifindex, program


def pinned(path: Path) -> int | None:
    """The link that is pinned there, if there is one."""
    try:
        return bpf.object_get(path)
    except FileNotFoundError:
        return None
