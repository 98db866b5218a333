"""Keeps secrets out of logs even where somebody logs too much."""

from __future__ import annotations

import logging
import re

#: Tokens of people and services (cy_…), enrolment tokens (cye_…), passwords in URLs.
_PATTERNS = [
    (re.compile(r"\b(cye?_)[A-Za-z0-9_\-.]{8,}"), r"\1[redacted]"),
    (re.compile(r"(://[^/\s:@]+:)[^@\s/]+@"), r"\1[redacted]@"),
    (re.compile(r"(?i)(authorization['\"]?\s*[:=]\s*['\"]?(?:bearer|basic)\s+)\S+"), r"\1[redacted]"),
]


def redact(text: str) -> str:
    """The text with everything that looks like a credential taken out."""
    for pattern, replacement in _PATTERNS:
        text = pattern.sub(replacement, text)
    return text


class Redact(logging.Filter):
    """A logging filter that redacts the formatted message; it lets every record pass."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg = redact(record.getMessage())
        record.args = ()
        return True
