"""Which programs there are, what they are to the kernel, and which object each comes from.

A new program is one line here; a new object is one line in ``OBJECTS``.
"""

from __future__ import annotations

from typing import NamedTuple

#: Sources that are compiled together and share their maps.
OBJECTS: dict[str, tuple[str, ...]] = {
    "cells": ("workload.bpf.c", "sockets.bpf.c"),
    "edge": ("edge.bpf.c",),
}

#: Names as bcc has them → ``enum bpf_prog_type`` of linux/bpf.h.
KINDS = {"SCHED_CLS": 3, "XDP": 6, "SOCK_OPS": 13, "CGROUP_SOCK_ADDR": 18}


class Program(NamedTuple):
    """``hook``: attach type (linux/bpf.h) at the root of the cgroups; None: attached elsewhere or not."""

    kind: str
    hook: int | None
    section: str
    object: str = "cells"


PROGRAMS: dict[str, Program] = {
    "from_workload": Program("SCHED_CLS", None, "tc"),
    "to_workload": Program("SCHED_CLS", None, "tc"),
    "to_underlay": Program("SCHED_CLS", None, "tc"),
    "connect4": Program("CGROUP_SOCK_ADDR", 10, "cgroup/connect4"),
    "connect6": Program("CGROUP_SOCK_ADDR", 11, "cgroup/connect6"),
    "sendmsg4": Program("CGROUP_SOCK_ADDR", 14, "cgroup/sendmsg4"),
    "sendmsg6": Program("CGROUP_SOCK_ADDR", 15, "cgroup/sendmsg6"),
    "recvmsg4": Program("CGROUP_SOCK_ADDR", 19, "cgroup/recvmsg4"),
    "recvmsg6": Program("CGROUP_SOCK_ADDR", 20, "cgroup/recvmsg6"),
    "getpeername4": Program("CGROUP_SOCK_ADDR", 29, "cgroup/getpeername4"),
    "getpeername6": Program("CGROUP_SOCK_ADDR", 30, "cgroup/getpeername6"),
    "sockops": Program("SOCK_OPS", 3, "cgroup/sockops"),
    "node_edge": Program("XDP", None, "xdp", "edge"),
}


def of(name: str) -> dict[str, Program]:
    """The programs of an object."""
    return {program: is_ for program, is_ in PROGRAMS.items() if is_.object == name}


#: What hangs at the root of the cgroups, by name.
HOOKS: dict[str, int] = {name: is_.hook for name, is_ in PROGRAMS.items() if is_.hook is not None}
