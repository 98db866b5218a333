"""What a build prints, in bounds: shown up to an amount, its end kept, lines cut that nobody could read."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

#: Bytes that are shown of one command; it may go on in silence.
MOST_SHOWN = 4 * 2**20
LONGEST_LINE = 16 * 1024
_LONGEST_HIDDEN = 1 << 20
#: Lines kept for whoever reads the output.
_KEPT = 20000


class Output:
    """Bytes in, lines out. ``say`` gets each line with its indent; None shows nothing."""

    def __init__(self, say: Callable[[str], None] | None) -> None:
        self._say = say
        # What isn't shown is read by us: it may have long lines.
        self._longest = LONGEST_LINE if say else _LONGEST_HIDDEN
        self._shown = 0
        self._lines: deque[str] = deque(maxlen=_KEPT)
        self._rest = b""

    @property
    def text(self) -> str:
        """The output, or its end if it was long."""
        return "".join(self._lines)

    def add(self, piece: bytes) -> None:
        """Take output as it comes, broken anywhere."""
        *whole, self._rest = (self._rest + piece).split(b"\n")
        for line in whole:
            self._line(line)
        # A line that never ends is shown in parts.
        while len(self._rest) > self._longest:
            self._line(self._rest[: self._longest])
            self._rest = self._rest[self._longest :]

    def close(self) -> None:
        """The last line may have no end."""
        if self._rest:
            self._line(self._rest)
            self._rest = b""

    def _line(self, raw: bytes) -> None:
        line = raw[: self._longest].decode(errors="replace") + "\n"
        self._lines.append(line)
        if self._say is None or self._shown > MOST_SHOWN:
            return
        self._shown += len(line)
        self._say(f"       {line}")
        if self._shown > MOST_SHOWN:
            self._say("       (it goes on; more output isn't shown)\n")
