"""A build's bound on disk: what it writes is counted while it runs, and ends it when it is too much.

Counting files costs, so free space is watched and files are counted only once enough of it is gone
since the build began. Whoever else fills the disk doesn't end a build that wrote little, unless almost
nothing is left: then builds are what can go.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

#: Bytes that builds leave to everything else on the machine.
RESERVE = 1 << 30
_SECONDS = 0.5


def used(folder: Path) -> int:
    """Bytes that the files below a folder take; links aren't followed, what vanishes meanwhile is nothing."""
    total, ahead = 0, [os.fspath(folder)]
    while ahead:
        with contextlib.suppress(OSError), os.scandir(ahead.pop()) as entries:
            for entry in entries:
                with contextlib.suppress(OSError):
                    status = entry.stat(follow_symlinks=False)
                    total += status.st_blocks * 512
                    if entry.is_dir(follow_symlinks=False):
                        ahead.append(entry.path)
    return total


def free(folder: Path) -> int:
    """Bytes that are free where a folder lies."""
    status = os.statvfs(folder)
    return status.f_bavail * status.f_frsize


class DiskWatch:
    """Calls ``end`` once ``folders`` hold more than ``limit`` bytes; a context manager."""

    def __init__(self, folders: Sequence[Path], limit: int, end: Callable[[], None]) -> None:
        self._folders, self._limit, self._end = folders, limit, end
        self._done = threading.Event()
        self._counted = self._begun = free(folders[0])
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.exceeded = False

    def __enter__(self) -> DiskWatch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._done.wait(_SECONDS):
            now = free(self._folders[0])
            # Counted again with each further eighth that is gone.
            if now > RESERVE and self._counted - now < self._limit // 8:
                continue
            self._counted = now
            if now <= RESERVE or sum(map(used, self._folders)) > self._limit:
                self.exceeded = True
                self._end()
                return
