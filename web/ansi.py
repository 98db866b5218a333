"""Terminal output as coloured parts: SGR colours are kept as class names, everything else is dropped.

What arrives is written by tenants' programs: parts are text and are escaped where they are shown.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

_ESCAPE = re.compile(
    r"\x1b\[([0-9;:]*)([@-~])"  # CSI sequences; those that end in m are colours
    r"|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)"  # OSC: titles and links
    r"|\x1b[@-Z\\-_]|[\x00-\x08\x0b-\x0d\x0e-\x1f\x7f]"
)
#: A longer line is cut: nobody reads it and a browser would suffer.
LONGEST = 8000

Part = tuple[str, str]


@dataclass
class Style:
    """The terminal's pen; carried from line to line."""

    foreground: int | None = None
    background: int | None = None
    flags: set[str] = field(default_factory=set)

    def apply(self, parameters: str) -> None:
        """Change the pen as an SGR sequence says."""
        codes = [int(p) if p.isdigit() else 0 for p in re.split("[;:]", parameters or "0")][:32]
        i = 0
        while i < len(codes):
            code = codes[i]
            if code == 0:
                self.foreground = self.background = None
                self.flags.clear()
            elif code in (1, 2, 3, 4):
                self.flags.add("bdiu"[code - 1])
            elif code == 22:
                self.flags -= {"b", "d"}
            elif code in (23, 24):
                self.flags.discard("iu"[code - 23])
            elif 30 <= code <= 37 or 90 <= code <= 97:
                self.foreground = code - 30 if code < 90 else code - 82
            elif 40 <= code <= 47:
                self.background = code - 40
            elif code == 39:
                self.foreground = None
            elif code == 49:
                self.background = None
            elif code in (38, 48):
                taken = 2 if codes[i + 1 : i + 2] == [5] else 4
                if taken == 2 and code == 38 and i + 2 < len(codes):
                    self.foreground = _nearest(codes[i + 2])
                i += taken
            i += 1

    @property
    def classes(self) -> str:
        names = [f"ansi-{flag}" for flag in sorted(self.flags)]
        if self.foreground is not None:
            names.append(f"ansi-f{self.foreground}")
        if self.background is not None:
            names.append(f"ansi-g{self.background}")
        return " ".join(names)


def _nearest(index: int) -> int | None:
    """One of 16 colours for one of 256."""
    if index < 16:
        return index
    if index >= 232:
        return 15 if index > 250 else 8
    index -= 16
    red, green, blue = index // 36, index // 6 % 6, index % 6
    bright = 8 if max(red, green, blue) > 3 else 0
    return bright + (red > 2) + 2 * (green > 2) + 4 * (blue > 2)


def parts(line: str, style: Style) -> list[Part]:
    """A line as (text, class names) parts; ``style`` is the pen and moves on."""
    if "\r" in line:  # a progress display: the last state is what a terminal would show
        line = next((piece for piece in reversed(line.split("\r")) if piece), "")
    line = line[:LONGEST]
    found: list[Part] = []
    end = 0
    for match in _ESCAPE.finditer(line):
        if match.start() > end:
            found.append((line[end : match.start()], style.classes))
        if match.group(2) == "m":
            style.apply(match.group(1))
        end = match.end()
    if end < len(line):
        found.append((line[end:], style.classes))
    return found


def plain(text: str) -> str:
    """Text without escape sequences."""
    return _ESCAPE.sub("", text)
