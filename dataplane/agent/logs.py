"""Reading what podman writes for each replica: its last lines, and new lines for the control plane."""

from __future__ import annotations

import contextlib
import json
import os
from collections import deque
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Any

from dataplane import reporting

_MOST_BYTES = 256 * 1024


def _parse(raw: bytes) -> tuple[float, str, bool, str] | None:
    """(time, stream, whether the line ends here, text) of a line in Kubernetes' format."""
    parts = raw.decode(errors="replace").rstrip("\n").split(" ", 3)
    if len(parts) < 3:
        return None
    try:
        at = datetime.fromisoformat(
            parts[0][:26] + parts[0][29:] if len(parts[0]) > 32 else parts[0]
        ).timestamp()
    except ValueError:
        at = 0.0
    return at, parts[1], parts[2] == "F", parts[3] if len(parts) > 3 else ""


def last_lines(file: Path, number: int = 30) -> list[str]:
    """The newest lines that a process wrote."""
    try:
        with file.open("rb") as handle:
            start = max(0, handle.seek(0, os.SEEK_END) - _MOST_BYTES)
            handle.seek(start)
            lines = handle.read().split(b"\n")
    except OSError:
        return []
    found: deque[str] = deque(maxlen=number)
    # The first one may be a line's end.
    for raw in lines[1:] if start else lines:
        parsed = _parse(raw)
        if parsed:
            found.append(parsed[3])
    return reporting.shortened(found)


class Tail:
    """Follows one file; remembers where it was, and begins anew when the file was replaced.

    ``place`` is (inode, offset): with it another agent goes on where this one was.
    """

    def __init__(self, replica: str, file: Path, place: tuple[int, int] = (0, 0)) -> None:
        self.replica, self.file, self.place = replica, file, place
        self._partial: dict[str, str] = {}

    def behind(self) -> bool:
        """Whether there is more to read."""
        with contextlib.suppress(OSError):
            status = self.file.stat()
            return (status.st_ino, status.st_size) != self.place
        return False

    def read(self) -> list[dict[str, Any]]:
        """Lines that came since the last time, at most a bounded amount."""
        try:
            with self.file.open("rb") as handle:
                inode, offset = self.place
                status = os.fstat(handle.fileno())
                if status.st_ino != inode or status.st_size < offset:
                    inode, offset = status.st_ino, 0
                    self._partial.clear()
                handle.seek(offset)
                data = handle.read(_MOST_BYTES)
        except OSError:
            return []
        end = data.rfind(b"\n") + 1
        if not end and len(data) == _MOST_BYTES:
            end = len(data)  # nothing that podman writes; it mustn't hold up what follows
        self.place = (inode, offset + end)
        lines = []
        for raw in data[:end].split(b"\n"):
            parsed = _parse(raw)
            if parsed is None:
                continue
            at, stream, complete, text = parsed
            text = self._partial.pop(stream, "") + text
            if complete or len(text) > 8192:
                lines.append({"replica": self.replica, "at": at, "stream": stream, "text": text})
            else:
                self._partial[stream] = text
        return lines


def save_places(file: Path, tails: Iterable[Tail]) -> None:
    """Keep where tails are, for the agent that starts after this one."""
    text = json.dumps({tail.replica: tail.place for tail in tails}, sort_keys=True)
    temporary = file.with_name(f".{file.name}.new")
    temporary.write_text(text)
    temporary.rename(file)


def load_places(file: Path) -> dict[str, tuple[int, int]]:
    """Kept places; none where there are none, or none that can be read."""
    with contextlib.suppress(OSError, ValueError, TypeError, AttributeError):
        return {str(name): (int(i), int(o)) for name, (i, o) in json.loads(file.read_text()).items()}
    return {}
