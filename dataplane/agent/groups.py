"""Processor time of control groups, of either version, as the node counts it.

A process's group is found by its id, a pod's by its uid: kubelet names the group after it, in one way or the
other and somewhere below its own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

#: Where kubelet's groups may begin, from a hierarchy's root; and how deep a pod's is below that.
_DEPTH = 4
_KUBELET = re.compile(r"kubepods|kubelet")
_NANO, _MICRO = 1e9, 1e6


def hierarchy(mounts: Path = Path("/proc/self/mountinfo")) -> tuple[Path, str, str] | None:
    """Mount, root within the hierarchy and version ("1", "2") of what counts processor time; None: nothing."""
    unified = None
    for line in mounts.read_text().splitlines():
        words = line.split()
        kind, options = words[words.index("-") + 1], words[-1].split(",")
        if kind == "cgroup" and "cpuacct" in options:
            return Path(words[4]), words[3], "1"
        if kind == "cgroup2" and unified is None:
            unified = (Path(words[4]), words[3], "2")
    return unified


def of_process(pid: int, proc: Path = Path("/proc"), mounts: Path | None = None) -> Path | None:
    """The folder of the group that a process is in; None if it is gone or out of sight."""
    try:
        found = hierarchy(mounts or proc / "self/mountinfo")
        text = (proc / str(pid) / "cgroup").read_text()
    except OSError:
        return None
    if found is None:
        return None
    mount, root, version = found
    for line in text.splitlines():
        _, controllers, place = line.split(":", 2)
        if ("cpuacct" in controllers.split(",")) if version == "1" else not controllers:
            inside = place.removeprefix(root.rstrip("/"))
            # Outside what is mounted it would be another group's path.
            folder = mount / inside.lstrip("/")
            return folder if ".." not in Path(inside).parts and folder.is_dir() else None
    return None


def of_pod(uid: str, mounts: Path = Path("/proc/self/mountinfo")) -> Path | None:
    """The folder of a pod's group; None if kubelet hasn't made it, or it is gone."""
    names = {f"pod{uid}", f"pod{uid.replace('-', '_')}"}
    try:
        found = hierarchy(mounts)
    except OSError:
        return None
    if found is None:
        return None
    for folder in _below(found[0], _DEPTH):
        # With systemd: kubepods-burstable-pod<uid>.slice.
        if folder.name in names or folder.name.removesuffix(".slice").rpartition("-")[2] in names:
            return folder
    return None


def _below(folder: Path, depth: int, inside: bool = False) -> Iterator[Path]:
    """Kubelet's groups, those near the root first. What isn't kubelet's is looked into only at the top."""
    try:
        children = sorted(child for child in folder.iterdir() if child.is_dir())
    except OSError:
        return
    own = [child for child in children if inside or _KUBELET.match(child.name)]
    yield from own
    if depth > 1:
        for child in own:
            yield from _below(child, depth - 1, inside=True)


def seconds(folder: Path) -> float | None:
    """Processor time that the group and all below it have used; None if it is gone."""
    try:
        if (folder / "cpuacct.usage").exists():
            return int((folder / "cpuacct.usage").read_text()) / _NANO
        for line in (folder / "cpu.stat").read_text().splitlines():
            name, _, value = line.partition(" ")
            if name == "usage_usec":
                return int(value) / _MICRO
    except (OSError, ValueError):
        pass
    return None
