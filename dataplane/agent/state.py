"""The last desired state on disk: with it a node runs on without its control plane."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from dataplane.client import write_private


class Damaged(RuntimeError):
    """The file exists and can't be believed."""


def save(file: Path, snapshot: dict[str, Any]) -> None:
    """Keep a snapshot; it holds secrets, so only root reads it."""
    text = json.dumps(snapshot, sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()
    write_private(file, json.dumps({"sha256": digest, "snapshot": text}).encode())


def load(file: Path) -> dict[str, Any] | None:
    """The kept snapshot, None if there is none. Raises ``Damaged``."""
    if not file.exists():
        return None
    try:
        document = json.loads(file.read_text())
        text = document["snapshot"]
        if hashlib.sha256(text.encode()).hexdigest() != document["sha256"]:
            raise Damaged(f"{file} doesn't match its checksum")
        return json.loads(text)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise Damaged(f"{file} can't be read: {error}") from error
