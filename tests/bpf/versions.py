"""Other versions of the platform: copies whose kernel programs differ in one place."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import NamedTuple

from tests.bpf.conftest import REPOSITORY


class Change(NamedTuple):
    """``insert`` goes behind ``behind`` in a source below ``bpf``."""

    file: str
    behind: str
    insert: str


def version(where: Path, change: Change | None = None) -> Path:
    """A copy of what loading needs; its loader is run with it as working directory."""
    for package in ("bpf", "infra"):
        ignore = shutil.ignore_patterns("__pycache__", "node_modules")
        shutil.copytree(REPOSITORY / package, where / package, ignore=ignore)
    if change is not None:
        source = where / "bpf" / change.file
        text = source.read_text()
        assert text.count(change.behind) == 1, change
        source.write_text(text.replace(change.behind, change.behind + change.insert))
    return where
