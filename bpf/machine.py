"""What loading needs of a machine: mounted file systems, the cgroup root, kernel headers."""

from __future__ import annotations

import fcntl
import importlib.util
import os
import platform
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bpf.errors import LoadError

BPFFS = Path("/sys/fs/bpf")
_OUR_MOUNTS = Path("/run/cytoplane.mounts")


def _mounts() -> list[tuple[str, str]]:
    lines = Path("/proc/mounts").read_text().splitlines()
    return [(where, kind) for _, where, kind, *_ in map(str.split, lines)]


def mount_bpffs() -> None:
    """Mount the file systems that a fresh machine lacks."""
    kinds = {kind for _, kind in _mounts()}
    for kind, where in (("bpf", str(BPFFS)), ("tracefs", "/sys/kernel/tracing")):
        if kind not in kinds and Path(where).exists():
            subprocess.run(["mount", "-t", kind, kind, where], check=True)
            # As long-lived as the mount: neither survives a restart of the machine.
            with _OUR_MOUNTS.open("a") as notes:
                notes.write(f"{where}\n")


def unmount_ours() -> None:
    """Take back the mounts that we made, once no installation needs them."""
    if not _OUR_MOUNTS.exists() or any(BPFFS.glob("cytoplane-*")):
        return
    for where in reversed(_OUR_MOUNTS.read_text().split()):
        subprocess.run(["umount", where], check=False, capture_output=True)
    _OUR_MOUNTS.unlink()


@contextmanager
def one_at_a_time(folder: Path) -> Iterator[None]:
    """Two that load at once would take each other's half-made pins away. Makes the folder; ends with the process."""
    while True:
        folder.mkdir(mode=0o700, exist_ok=True)
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            # Whoever had it before may have removed it.
            if folder.exists() and folder.stat().st_ino == os.fstat(descriptor).st_ino:
                yield
                return
        finally:
            os.close(descriptor)


def cgroup_root() -> Path:
    """Where the version 2 hierarchy is mounted; hybrid systems have it below /sys/fs/cgroup."""
    for where, kind in _mounts():
        if kind == "cgroup2":
            return Path(where)
    raise LoadError("no cgroup2 hierarchy is mounted: mount one, e.g. at /sys/fs/cgroup/unified")


def _running() -> Path:
    return Path("/lib/modules") / platform.release()


def _debians() -> list[Path]:
    return sorted(Path("/usr/src").glob("linux-headers-*-amd64"))


def can_compile() -> bool:
    """Whether bcc and headers for it are there."""
    return importlib.util.find_spec("bcc") is not None and (
        (_running() / "build").exists() or bool(_debians())
    )


def find_headers() -> None:
    """Let bcc find kernel headers: those of the running kernel, else Debian's newest.

    Safe because the programs use nothing but UAPI structures.
    """
    wanted = _running()
    if (wanted / "build").exists():
        return
    candidates = _debians()
    if not candidates:
        raise LoadError("no kernel headers: install linux-headers-amd64, or load prebuilt programs")
    wanted.mkdir(parents=True, exist_ok=True)
    common = Path(str(candidates[-1]).replace("-amd64", "-common"))
    for name, target in (("build", candidates[-1]), ("source", common)):
        link = wanted / name
        if link.is_symlink():
            link.unlink()
        link.symlink_to(target)
