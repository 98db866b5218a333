"""``python -m infra.cluster.enter PLACE -- COMMAND…``: a command in ``control``, ``node1`` or ``node2``.

It joins the place's control groups, so it ends with the place. Waits until the node is there.
"""

from __future__ import annotations

import ctypes
import os
import sys
import time
from pathlib import Path

from infra.cluster import groups
from infra.cluster.settings import Cluster, load

NEWNS, NEWCGROUP, NEWUTS, NEWNET = 0x00020000, 0x02000000, 0x04000000, 0x40000000
_WAIT_SECONDS = 30.0
_libc = ctypes.CDLL(None, use_errno=True)


def born(pid: int) -> str:
    """When a process started, in the kernel's ticks: ids are used again, this isn't. "" if it is gone."""
    try:
        # The name is in brackets and may hold anything.
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[19]
    except OSError:
        return ""


def enter_namespace(path: Path, kind: int) -> None:
    """Move this thread into a namespace. Raises ``OSError``."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        if _libc.setns(descriptor, kind) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), str(path))
    finally:
        os.close(descriptor)


def holder(cluster: Cluster, place: str) -> int:
    """The process that holds a node; 0 if there is none."""
    try:
        pid, start = (cluster.run / f"{place}.pid").read_text().split()
    except (OSError, ValueError):
        return 0
    return int(pid) if born(int(pid)) == start else 0


def enter(cluster: Cluster, place: str) -> None:
    """Move this process there. Raises ``OSError``, or ``TimeoutError`` if the node doesn't come."""
    if place == "control":
        groups.join(cluster, place)
        enter_namespace(cluster.netns(place), NEWNET)
        return
    end = time.monotonic() + _WAIT_SECONDS
    while not (pid := holder(cluster, place)):
        if time.monotonic() > end:
            raise TimeoutError(f"{place} isn't there")
        time.sleep(0.05)
    own = Path(f"/proc/{pid}/ns")
    spaces = {name: os.open(own / name, os.O_RDONLY) for name in ("net", "uts", "cgroup", "mnt")}
    groups.join(cluster, place)
    for descriptor in spaces.values():
        if _libc.setns(descriptor, 0) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), place)
        os.close(descriptor)
    os.chdir("/")


def main() -> None:
    place, dashes, *command = sys.argv[1:] if len(sys.argv) > 3 else ("", "", "")
    if place not in groups.PLACES or dashes != "--":
        raise SystemExit(f"usage: python -m infra.cluster.enter {'|'.join(groups.PLACES)} -- COMMAND…")
    enter(load(), place)
    os.execvp(command[0], command)  # noqa: S606


if __name__ == "__main__":
    main()
