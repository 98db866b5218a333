"""Control groups of either version: which ones a process or a pod is in, and their processor time.

A process's group is found by its id, a pod's by its uid: kubelet names the group after it, in one way or the
other and somewhere below its own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

#: Where kubelet's groups may begin, from a hierarchy's root; and how deep a pod's is below that.
_DEPTH = 4
_KUBELET = re.compile(r"kubepods|kubelet")
_NANO, _MICRO = 1e9, 1e6
_MOUNTS = Path("/proc/self/mountinfo")


@dataclass(frozen=True)
class Hierarchy:
    """Where it is mounted, which part of it that is, and its controllers; none of the second version's."""

    mount: Path
    root: str
    controllers: frozenset[str]

    def folder(self, place: str) -> Path | None:
        """Of a group, as /proc says where it is; None if that is outside of what is mounted."""
        inside = Path(place.removeprefix(self.root.rstrip("/")).lstrip("/"))
        # Outside it would be another group's path.
        return None if ".." in inside.parts else self.mount / inside


def hierarchies(mounts: Path = _MOUNTS) -> list[Hierarchy]:
    """Everything that is mounted of control groups, in order."""
    found = []
    for line in mounts.read_text().splitlines():
        words = line.split()
        kind, options = words[words.index("-") + 1], words[-1].split(",")
        if kind in ("cgroup", "cgroup2"):
            found.append(Hierarchy(Path(words[4]), words[3], frozenset(options if kind == "cgroup" else ())))
    return found


def places(pid: int, proc: Path = Path("/proc")) -> list[tuple[frozenset[str], str]]:
    """Controllers and group of each hierarchy that a process is in; of the second version there are none."""
    lines = (proc / str(pid) / "cgroup").read_text().splitlines()
    return [
        (frozenset(words.split(",")) - {""}, place) for _, words, place in (x.split(":", 2) for x in lines)
    ]


def counting(mounts: Path = _MOUNTS) -> Hierarchy | None:
    """What counts processor time: the first version's controller where it is mounted."""
    found = hierarchies(mounts)
    first = next((each for each in found if "cpuacct" in each.controllers), None)
    return first or next((each for each in found if not each.controllers), None)


def of_process(pid: int, proc: Path = Path("/proc"), mounts: Path | None = None) -> Path | None:
    """The folder of the group that a process is in; None if it is gone or out of sight."""
    try:
        found = counting(mounts or proc / "self/mountinfo")
        own = places(pid, proc)
    except OSError:
        return None
    if found is None:
        return None
    for controllers, place in own:
        if ("cpuacct" in controllers) if found.controllers else not controllers:
            folder = found.folder(place)
            return folder if folder is not None and folder.is_dir() else None
    return None


def of_pod(uid: str, mounts: Path = _MOUNTS) -> Path | None:
    """The folder of a pod's group; None if kubelet hasn't made it, or it is gone."""
    names = {f"pod{uid}", f"pod{uid.replace('-', '_')}"}
    try:
        found = counting(mounts)
    except OSError:
        return None
    if found is None:
        return None
    for folder in _below(found.mount, _DEPTH):
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
