"""Reading what podman writes for each replica: its last lines, and new lines for the control plane."""

from __future__ import annotations

from collections import deque
from datetime import datetime
from pathlib import Path
from typing import Any

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
            handle.seek(0, 2)
            handle.seek(max(0, handle.tell() - _MOST_BYTES))
            lines = handle.read().splitlines()
    except OSError:
        return []
    found: deque[str] = deque(maxlen=number)
    for raw in lines:
        parsed = _parse(raw)
        if parsed:
            found.append(parsed[3])
    return list(found)


class Tail:
    """Follows one file; remembers where it was, and begins anew when the file was replaced."""

    def __init__(self, replica: str, file: Path, offset: int = 0) -> None:
        self.replica, self.file, self.offset = replica, file, offset
        self._partial = ""

    def read(self) -> list[dict[str, Any]]:
        """Lines that came since the last time, at most a bounded amount."""
        try:
            with self.file.open("rb") as handle:
                handle.seek(0, 2)
                if handle.tell() < self.offset:
                    self.offset = 0
                handle.seek(self.offset)
                data = handle.read(_MOST_BYTES)
        except OSError:
            return []
        end = data.rfind(b"\n") + 1
        self.offset += end
        lines = []
        for raw in data[:end].splitlines():
            parsed = _parse(raw)
            if parsed is None:
                continue
            at, stream, complete, text = parsed
            self._partial += text
            if complete or len(self._partial) > 8192:
                lines.append({"replica": self.replica, "at": at, "stream": stream, "text": self._partial})
                self._partial = ""
        return lines
