"""Which control groups a process is in, and putting another one into them."""

from __future__ import annotations

from pathlib import Path


class NotPlaced(RuntimeError):
    """The process can't be where its limits hold."""


def _mounts() -> dict[str, tuple[str, str]]:
    """Controller ("" for the second version) → where its hierarchy is mounted, and which part of it."""
    found: dict[str, tuple[str, str]] = {}
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        kind, _, options = after.split(" ", 2)
        root, point = before.split(" ")[3:5]
        if kind == "cgroup2":
            found.setdefault("", (point, root))
        elif kind == "cgroup":
            for option in options.split(","):
                found.setdefault(option, (point, root))
    return found


def of(pid: int) -> list[Path]:
    """Folders of the control groups that a process is in, of all hierarchies where it isn't in the root."""
    mounts, found = _mounts(), []
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if path == "/":
            continue
        first = controllers.split(",")[0]
        if first not in mounts:
            raise NotPlaced(f"the control groups of {first or 'the second version'} can't be seen")
        point, root = mounts[first]
        inside = path.removeprefix(root.rstrip("/"))
        found.append(Path(point + inside))
    return found


def join(pid: int, other: int) -> None:
    """Put process ``other`` where ``pid`` is. Raises ``OSError`` or ``NotPlaced``."""
    folders = of(pid)
    if not folders:
        raise NotPlaced("the replica is in no control group")
    for folder in folders:
        (folder / "cgroup.procs").write_text(str(other))
