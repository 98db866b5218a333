"""Control groups of builds: memory, processor and processes, for the build tools as for what they run."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from infra.config import Config

_PERIOD = 100_000


def _mounts() -> dict[str, Path]:
    """Controller (or "unified") → where it is mounted."""
    found: dict[str, Path] = {}
    for line in Path("/proc/mounts").read_text().splitlines():
        _, place, kind, options, *_ = line.split()
        if kind == "cgroup2":
            found.setdefault("unified", Path(place))
        elif kind == "cgroup":
            for name in set(options.split(",")) & {"memory", "cpu", "pids"}:
                found.setdefault(name, Path(place))
    return found


def _set(folder: Path, name: str, value: object) -> None:
    file = folder / name
    if file.exists():
        file.write_text(str(value))


def group(config: Config, slot: int, limits: dict[str, Any]) -> list[Path]:
    """The folders that a build in ``slot`` joins; made, with its limits set."""
    memory, cpu = int(limits["memory"]), int(limits["cpu"] * _PERIOD)
    mounts, name = _mounts(), Path(f"{config.name}-builds") / f"slot-{slot}"
    folders = []
    for controller in ("memory", "cpu", "pids"):
        if controller in mounts:
            folder = mounts[controller] / name
            folder.mkdir(parents=True, exist_ok=True)
            folders.append(folder)
    if not folders and "unified" in mounts:
        folder = mounts["unified"] / name
        for parent in (mounts["unified"], mounts["unified"] / name.parent):
            parent.mkdir(exist_ok=True)
            _set(parent, "cgroup.subtree_control", "+memory +cpu +pids")
        folder.mkdir(exist_ok=True)
        folders.append(folder)
    for folder in folders:
        with contextlib.suppress(OSError):
            # It may never be below the memory, which may have grown since the last build.
            _set(folder, "memory.memsw.limit_in_bytes", -1)
        _set(folder, "memory.limit_in_bytes", memory)
        _set(folder, "memory.max", memory)
        with contextlib.suppress(OSError):  # swap accounting may be off
            _set(folder, "memory.memsw.limit_in_bytes", memory)
            _set(folder, "memory.swap.max", 0)
        if (folder / "cpu.max").exists():
            _set(folder, "cpu.max", f"{cpu} {_PERIOD}")
        _set(folder, "cpu.cfs_period_us", _PERIOD)
        _set(folder, "cpu.cfs_quota_us", cpu)
        _set(folder, "pids.max", int(limits["pids"]))
    return folders


def remove(config: Config) -> None:
    """Take the groups away; nothing of a build runs any more."""
    for mount in set(_mounts().values()):
        top = mount / f"{config.name}-builds"
        for folder in (*top.glob("slot-*"), top):
            with contextlib.suppress(OSError):
                folder.rmdir()
