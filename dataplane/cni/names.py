"""Whose a pod is, told by its namespace's name alone. ``plugin.c`` decides in the same way; a test compares."""

from __future__ import annotations

import re

_CELL = re.compile(r"cell-[1-9][0-9]{0,18}-[0-9a-f]{8}", re.ASCII)


def is_cell(namespace: str) -> bool:
    """Whether a Kubernetes namespace is a cell's place, as ``dataplane.drivers.location_for`` names them."""
    return _CELL.fullmatch(namespace) is not None
