"""How much room repositories take, and packing them again so that they take less.

Only git's own plumbing touches them, with the environment of ``repository``. Packing is bounded in time,
memory and disk: what isn't done by then is tried again later, and leaves nothing behind.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from controlplane.errors import CytoplaneError
from delivery.git import repository
from projects.models import Project

log = logging.getLogger("cytoplane.git")
MIB = 2**20
#: Of one round over all repositories; below the time after which the broker gives a task out again.
ROUND_SECONDS = 90.0
#: Loose objects and packs from which on packing is worth it.
MANY_LOOSE, MANY_PACKS = 300, 5
#: How long objects stay that no branch needs: a push that waits for its deployment may.
GRACE = "1.day.ago"
_LIMITS = {
    "pack.threads": "1",
    "pack.windowMemory": "64m",
    "pack.deltaCacheSize": "32m",
}


def size(path: Path) -> int:
    """Bytes on disk of a repository, with what pushes have in quarantine there."""
    total = 0
    for folder, _, files in os.walk(path):
        for name in files:
            with contextlib.suppress(OSError):  # git moves and removes while we look
                total += Path(folder, name).lstat().st_blocks * 512
    return total


def check(project: Project, path: Path) -> None:
    """Raise `quota` if the repository, with the push in its quarantine, is larger than the plan allows."""
    limit, used = project.tenant.plan.repository_mib, size(path)
    if used > limit * MIB:
        raise CytoplaneError(
            "quota",
            tenant=project.tenant.slug,
            limit=limit,
            what=f"MiB in the repository of {project.slug}",
            wanted=-(-used // MIB),
        )


def scattered(path: Path) -> bool:
    """Whether packing the repository is worth it."""
    objects = path / "objects"
    loose = sum(len(list(folder.iterdir())) for folder in objects.glob("[0-9a-f][0-9a-f]"))
    return loose > MANY_LOOSE or len(list(objects.glob("pack/*.pack"))) > MANY_PACKS


def pack(path: Path, seconds: float = ROUND_SECONDS) -> bool:
    """One pack of everything, without what nobody needs any more; whether it was done in time.

    Pushes go on meanwhile. Another one that packs the same repository makes it False at once.
    """
    until = time.monotonic() + seconds
    with _alone(path) as alone:
        if not alone:
            return False
        try:
            for command in (
                ("pack-refs", "--all"),
                ("repack", "-q", "-d", "-l", "--cruft", f"--cruft-expiration={GRACE}"),
                ("prune", f"--expire={GRACE}"),
            ):
                _git(path, until, *command)
        except (subprocess.SubprocessError, OSError) as error:
            # Nobody else makes packs in there: pushes have their quarantines.
            for name in ("tmp_*", ".tmp-*"):
                for left in path.glob(f"objects/pack/{name}"):
                    left.unlink(missing_ok=True)
            log.warning("repository %s isn't packed: %s", path, error)
            return False
    return True


def pack_scattered(projects: Iterator[Project], seconds: float = ROUND_SECONDS) -> int:
    """Pack those of the projects' repositories that need it, as long as there is time; how many."""
    until, done = time.monotonic() + seconds, 0
    for project in projects:
        path = repository.path_of(project.tenant_id, project.pk)
        left = until - time.monotonic()
        if left <= 0:
            break
        with contextlib.suppress(FileNotFoundError):  # removed, or being written to, while we look
            if path.is_dir() and scattered(path):
                done += pack(path, left)
    return done


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[bool]:
    """Whether nobody else packs the repository; a lock that ends with its process."""
    with (path / "cytoplane-pack.lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True


def _git(path: Path, until: float, *arguments: str) -> None:
    """A git command with lower priority that ends in time, its children too."""
    options = [part for key, value in _LIMITS.items() for part in ("-c", f"{key}={value}")]
    command = ["nice", "-n", "10", "git", *options, "--git-dir", str(path), *arguments]
    process = subprocess.Popen(
        command,
        env=repository.environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        _, complaint = process.communicate(timeout=max(0.0, until - time.monotonic()))
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        raise
    if process.returncode:
        raise subprocess.SubprocessError(complaint.decode(errors="replace")[-300:])
