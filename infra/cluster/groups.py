"""Control groups of a cluster: one group in every hierarchy, with ``control`` and the nodes in it.

Whatever the cluster starts, containers included, is below that group of the unified hierarchy, so that
everything can be ended without knowing what it is. A node's processes are in ``node1/system`` there:
where the unified hierarchy has the controllers, a group with groups below it may hold none itself.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

from infra.cluster.settings import Cluster

PLACES = ("control", "node1", "node2")
_CONTROLLERS = ("cpuset", "cpu", "io", "memory", "hugetlb", "pids")
_SECONDS = 20.0


def hierarchies() -> list[tuple[Path, str, str]]:
    """(Where it is mounted, its type, its options for mounting it elsewhere) of each hierarchy."""
    found: list[tuple[Path, str, str]] = []
    plain = {"rw", "ro", "relatime", "nosuid", "nodev", "noexec"}
    for line in Path("/proc/mounts").read_text().splitlines():
        _, place, kind, options, *_ = line.split()
        if kind in ("cgroup", "cgroup2") and place not in (str(mount) for mount, _, _ in found):
            special = [o for o in options.split(",") if o not in plain and not o.startswith("release_agent")]
            if kind == "cgroup2" and any(k == "cgroup2" for _, k, _ in found):
                continue
            found.append((Path(place), kind, ",".join(special) if kind == "cgroup" else ""))
    return found


def unified() -> Path:
    """Where the unified hierarchy is. Raises ``RuntimeError`` if there is none."""
    for mount, kind, _ in hierarchies():
        if kind == "cgroup2":
            return mount
    raise RuntimeError("no unified hierarchy of control groups is mounted (cgroup2)")


def _prepare(folder: Path, kind: str) -> None:
    folder.mkdir(exist_ok=True)
    parent = folder.parent
    if kind == "cgroup":
        for name in ("cpuset.cpus", "cpuset.mems"):
            file = folder / name
            if file.exists() and not file.read_text().strip():
                file.write_text((parent / name).read_text())
        return
    for controller in _CONTROLLERS:
        # Absent, or in another hierarchy.
        with contextlib.suppress(OSError):
            (parent / "cgroup.subtree_control").write_text(f"+{controller}")


def ensure(cluster: Cluster) -> None:
    """Make the groups that are missing."""
    for mount, kind, _ in hierarchies():
        top = mount / cluster.group
        _prepare(top, kind)
        for place in PLACES:
            _prepare(top / place, kind)
        if kind == "cgroup2":
            for place in PLACES[1:]:
                (top / place / "system").mkdir(exist_ok=True)


def join(cluster: Cluster, place: str, *, top: bool = False) -> None:
    """Move this process there. With ``top`` into the node's own group: for as long as it takes to make
    it the root of what the node sees."""
    for mount, kind, _ in hierarchies():
        folder = mount / cluster.group / place
        if kind == "cgroup2" and place != "control" and not top:
            folder = folder / "system"
        (folder / "cgroup.procs").write_text("0")


def _folders(top: Path) -> list[Path]:
    """A group and all below it, the deepest first."""
    return [Path(folder) for folder, _, _ in os.walk(top, topdown=False)]


def processes(cluster: Cluster, place: str = "") -> set[int]:
    """Everything that runs in the cluster, or in one place of it."""
    found = set()
    for mount, _, _ in hierarchies():
        for folder in _folders(mount / cluster.group / place):
            with contextlib.suppress(OSError):
                found |= {int(pid) for pid in (folder / "cgroup.procs").read_text().split()}
    return found - {0}


def kill(cluster: Cluster, place: str = "") -> None:
    """End everything there, at once, and wait until it is gone. Raises ``RuntimeError``."""
    end = time.monotonic() + _SECONDS
    while True:
        with contextlib.suppress(OSError, RuntimeError):
            # All of them in one stroke: none is left to start another.
            (unified() / cluster.group / place / "cgroup.kill").write_text("1")
        left = processes(cluster, place) - {os.getpid()}
        if not left:
            return
        if time.monotonic() > end:
            raise RuntimeError(f"these processes of the cluster don't end: {sorted(left)}")
        for pid in left:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)


def remove(cluster: Cluster, place: str = "") -> None:
    """Take the groups away, when nothing runs in them. Raises ``RuntimeError``."""
    end = time.monotonic() + _SECONDS
    while True:
        left = []
        for mount, _, _ in hierarchies():
            for folder in _folders(mount / cluster.group / place):
                try:
                    folder.rmdir()
                except FileNotFoundError:
                    continue
                except OSError:
                    left.append(folder)
        if not left:
            return
        if time.monotonic() > end:
            raise RuntimeError(f"this control group doesn't go: {left[0]}")
        time.sleep(0.05)
