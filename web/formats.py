"""Numbers and times as people read them. Times stay in UTC here; the browser shows the reader's zone."""

from __future__ import annotations

from datetime import datetime, timedelta

from django.utils import timezone


def duration(value: timedelta | float | None) -> str:
    """A span: ``0.4 s``, ``12 s``, ``3 min 5 s``, ``2 h 10 min``. Seconds if a number is given."""
    if value is None:
        return ""
    seconds = value.total_seconds() if isinstance(value, timedelta) else float(value)
    seconds = max(0.0, seconds)
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s" if whole % 60 else f"{whole // 60} min"
    if whole < 86400:
        minutes = whole % 3600 // 60
        return f"{whole // 3600} h {minutes} min" if minutes else f"{whole // 3600} h"
    days, hours = whole // 86400, whole % 86400 // 3600
    return f"{days} d {hours} h" if hours else f"{days} d"


def ago(moment: datetime | None, now: datetime | None = None) -> str:
    """How long ago, in one unit: ``just now``, ``5 min ago``, ``yesterday`` is never guessed."""
    if moment is None:
        return "never"
    seconds = ((now or timezone.now()) - moment).total_seconds()
    ahead = seconds < -5
    seconds = abs(seconds)
    for limit, size, unit in ((60, 1, "s"), (3600, 60, "min"), (86400, 3600, "h"), (86400 * 60, 86400, "d")):
        if seconds < limit:
            if unit == "s" and seconds < 5:
                return "just now"
            text = f"{int(seconds // size)} {unit}"
            return f"in {text}" if ahead else f"{text} ago"
    return moment.strftime("%-d %b %Y")


def count(value: float | None) -> str:
    """A number in three digits: ``7``, ``1.2 k``, ``34 M``."""
    if value is None:
        return "–"
    number = float(value)
    for unit in ("", "k", "M", "G", "T"):
        if abs(number) < 1000 or unit == "T":
            if unit == "" and number == int(number):
                return str(int(number))
            digits = 0 if abs(number) >= 100 else 1
            return f"{number:.{digits}f}{' ' + unit if unit else ''}"
        number /= 1000
    return str(value)


def size(value: float | None) -> str:
    """Bytes in powers of 1024: ``512 B``, ``1.4 KiB``."""
    if value is None:
        return "–"
    number = float(value)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if number < 1024 or unit == "TiB":
            return f"{number:.0f} {unit}" if unit == "B" or number >= 100 else f"{number:.1f} {unit}"
        number /= 1024
    return str(value)


def rate(per_second: float | None) -> str:
    """Something each second; slow ones each minute, so that a small number isn't shown as zero."""
    if not per_second:
        return "0/s"
    if per_second < 0.1:
        return f"{count(round(per_second * 60, 1))}/min"
    return f"{count(round(per_second, 1))}/s"


PROTOCOL_NAMES = {6: "tcp", 17: "udp", 1: "icmp", 58: "icmpv6"}


def protocol(number: int) -> str:
    """Name of an IP protocol number."""
    return PROTOCOL_NAMES.get(number, f"protocol {number}")
