"""Putting a process into the control groups of another one."""

from __future__ import annotations

from pathlib import Path

from dataplane.agent import groups


class NotPlaced(RuntimeError):
    """The process can't be where its limits hold."""


def of(pid: int, proc: Path = Path("/proc"), mounts: Path | None = None) -> list[Path]:
    """Folders of the control groups that a process is in, of all hierarchies where it isn't in the root."""
    mounted, found = groups.hierarchies(mounts or proc / "self/mountinfo"), []
    for controllers, place in groups.places(pid, proc):
        if place == "/":
            continue
        # Those of one hierarchy are mounted together; the second version has none.
        own = next(
            (
                each
                for each in mounted
                if each.controllers >= controllers and bool(each.controllers) == bool(controllers)
            ),
            None,
        )
        folder = own.folder(place) if own is not None else None
        if folder is None:
            what = ", ".join(sorted(controllers)) or "the second version"
            raise NotPlaced(f"the control groups of {what} can't be seen")
        found.append(folder)
    return found


def join(process: int, other: int) -> None:
    """Put process ``other`` where another one is, by its open folder in /proc. Raises ``OSError`` or ``NotPlaced``."""
    folders = of(process, Path("/proc/self/fd"), Path("/proc/self/mountinfo"))
    if not folders:
        raise NotPlaced("the replica is in no control group")
    for folder in folders:
        (folder / "cgroup.procs").write_text(str(other))
