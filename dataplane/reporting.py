"""Reports in portions that the control plane takes: what one process prints mustn't hold up what is said of others."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

#: Of a portion: encoded bytes and reports. The control plane takes 2 MiB and two thousand.
MOST_BYTES, MOST = 512 * 1024, 1000
#: Of a line that goes along with a report: more isn't kept.
LONGEST_LINE = 400


def portions(reports: Iterable[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """All reports in their order, as few requests as may be."""
    portion: list[dict[str, Any]] = []
    size = 0
    for report in reports:
        length = len(json.dumps(report))
        if portion and (size + length > MOST_BYTES or len(portion) == MOST):
            yield portion
            portion, size = [], 0
        portion.append(report)
        size += length
    if portion:
        yield portion


def shortened(lines: Iterable[str]) -> list[str]:
    """Last lines, each as far as it is kept."""
    return [line[:LONGEST_LINE] for line in lines]
