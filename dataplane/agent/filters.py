"""Which of our programs really are on an interface: the kernel's answer, not what was once attached."""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterable

from bpf import attach, loader
from bpf import sys as bpf
from dataplane.agent import netlink
from infra.config import Config

_GET_FILTER = 46
#: family, padding, interface, handle, parent, info.
_MESSAGE = struct.Struct("=BBHiIII")
_OPTIONS, _PROGRAM_ID = 2, 11
_SIDES = {"from_workload": 0xFFFFFFF2, "to_workload": 0xFFFFFFF3}


def programs(ifindexes: Iterable[int]) -> dict[int, dict[str, list[int]]]:
    """Interface → side → ids of the programs there, in order of judgement. Interfaces that are gone are left out."""
    found: dict[int, dict[str, list[int]]] = {}
    with netlink.Conversation(socket.NETLINK_ROUTE) as kernel:
        for ifindex in ifindexes:
            if not _exists(ifindex):
                continue  # the kernel's answer would be that it has no programs
            found[ifindex] = {side: _ids(kernel, ifindex, parent) for side, parent in _SIDES.items()}
    return found


def _ids(kernel: netlink.Conversation, ifindex: int, parent: int) -> list[int]:
    ids = []
    try:
        answers = list(kernel.ask(_GET_FILTER, netlink.DUMP, _MESSAGE.pack(0, 0, 0, ifindex, 0, parent, 0)))
    except OSError as error:
        if error.errno == errno.EINVAL:
            return []  # without the queueing discipline that holds filters
        raise
    for answer in answers:
        options = netlink.attributes(answer[_MESSAGE.size :]).get(_OPTIONS, b"")
        raw = netlink.attributes(options).get(_PROGRAM_ID)
        if raw:
            ids.append(struct.unpack("=I", raw)[0])
    return ids


def current(config: Config) -> dict[str, int]:
    """Side → id of the program that this version of the agent loaded."""
    found = {}
    for side in _SIDES:
        descriptor = bpf.object_get(loader.pins(config) / "programs" / side)
        try:
            found[side] = bpf.info(descriptor)["id"]
        finally:
            os.close(descriptor)
    return found


def repair(config: Config, ifindexes: Iterable[int]) -> list[int]:
    """Put the programs back where they aren't the first to judge; the interfaces that lacked one."""
    wanted = current(config)
    lacking = [
        ifindex
        for ifindex, sides in programs(ifindexes).items()
        if any(ids[:1] != [wanted[side]] for side, ids in sides.items())
    ]
    return [ifindex for ifindex in lacking if _put_back(config, ifindex)]


def _put_back(config: Config, ifindex: int) -> bool:
    """Whether there was an interface to put them on: it may have gone meanwhile."""
    try:
        attach.attach(config, ifindex)
    except Exception:
        if _exists(ifindex):
            raise
        return False
    return True


def _exists(ifindex: int) -> bool:
    try:
        socket.if_indextoname(ifindex)
    except OSError:
        return False
    return True
