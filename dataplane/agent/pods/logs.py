"""What a pod's container writes, from the files that its runtime keeps: one for each start, rotated by kubelet."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dataplane.agent.logs import Tail
from dataplane.agent.pods.local import Pod

ROOT = Path("/var/log/pods")


def folder(pod: Pod, root: Path = ROOT) -> Path:
    """Where the files of a pod's process are."""
    return root / f"{pod.namespace}_{pod.name}_{pod.uid}" / pod.app


class PodTail(Tail):
    """Follows one file after the other: ``0.log``, what it was rotated to, ``1.log`` after a restart, …

    A file is read to its end before the next one is begun; ``place`` is (inode, offset) in the one that is
    being read, as of ``Tail``. A replica's next pod has a folder of its own: ``where`` says which one it is
    now, and what the one before holds is read first. Names that kubelet gives when it rotates sort by time; it packs only files
    that were rotated before, which have been read by then.
    """

    def __init__(
        self, replica: str, where: Callable[[], Path | None], place: tuple[int, int] = (0, 0)
    ) -> None:
        super().__init__(replica, Path(os.devnull), place)
        self._where, self._folder = where, where()
        #: Of the start whose file is being read: a file's inode may have been another's before. -1: not known.
        self._start = -1

    def read(self) -> list[dict[str, Any]]:
        now = self._where()
        lines = self._read_on()
        if lines or now is None or now == self._folder:
            return lines
        self._folder, self._start, self.place = now, -1, (0, 0)
        self._partial.clear()
        return self._read_on()

    def _read_on(self) -> list[dict[str, Any]]:
        files = self._files()
        known = (self._start, self.place[0])
        at = next(
            (n for n, (_, start, inode) in enumerate(files) if known in ((start, inode), (-1, inode))), None
        )
        if at is None:
            if not files:
                return []
            # Nothing that was read is left: from the oldest that is there.
            at, known = 0, (-1, 0)
        for path, start, inode in files[at:]:
            if known not in ((start, inode), (-1, inode)):
                self.place = (inode, 0)
            self._start = start
            known = (start, inode)
            lines, whole = self._read(path, inode)
            if lines or not whole:
                return lines
        return []

    def _read(self, path: Path, inode: int) -> tuple[list[dict[str, Any]], bool]:
        """New lines of one file, and whether it was read to its end."""
        try:
            descriptor = os.open(path, os.O_RDONLY)
        except OSError:
            return [], False
        try:
            status = os.fstat(descriptor)
            if status.st_ino != inode:
                return [], False  # rotated a moment ago: the next round sees it
            self.file = Path(f"/proc/self/fd/{descriptor}")
            lines = super().read()
            return lines, self.place[1] >= status.st_size
        finally:
            os.close(descriptor)

    def _files(self) -> list[tuple[Path, int, int]]:
        """What there is, the oldest first: its path, which start it is of, its inode."""
        found = []
        if self._folder is None:
            return []
        try:
            entries = list(os.scandir(self._folder))
        except OSError:
            return []
        for entry in entries:
            number, _, rest = entry.name.partition(".")
            if not number.isdigit() or not (rest == "log" or rest.startswith("log.")):
                continue
            if rest.endswith((".gz", ".tmp")):
                continue
            # The file without a time is the newest of its start.
            order = (int(number), rest == "log", rest)
            try:
                found.append((order, Path(entry.path), entry.inode()))
            except OSError:
                continue
        return [(path, order[0], inode) for order, path, inode in sorted(found)]
