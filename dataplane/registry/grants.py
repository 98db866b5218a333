"""Which cell may pull what on a node: a file that the agent writes from desired state and the proxy reads.

It holds no token, only hashes, and still belongs to root alone: it says who runs which image.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dataplane.client import write_private
from dataplane.registry import names
from infra.config import Config


def path_in(config: Config) -> Path:
    return config.agent_dir / "pulls.json"


def of(document: Mapping[str, Any]) -> dict[str, Any]:
    """Namespace → hash of its token and the images that desired state has for it."""
    cells: dict[str, dict[str, Any]] = {}
    for endpoint in document["endpoints"]:
        pod = endpoint.get("pod") or {}
        if pod.get("namespace") and pod.get("pull"):
            cell = cells.setdefault(pod["namespace"], {"pull": pod["pull"], "images": []})
            if endpoint["process"]["image"] not in cell["images"]:
                cell["images"].append(endpoint["process"]["image"])
    return {name: {**cell, "images": sorted(cell["images"])} for name, cell in sorted(cells.items())}


def write(config: Config, document: Mapping[str, Any]) -> None:
    """Bring the file to a snapshot; not touched if it says the same. Raises ``OSError``."""
    target, text = path_in(config), json.dumps(of(document), sort_keys=True).encode()
    if not target.exists() or target.read_bytes() != text:
        write_private(target, text)


@dataclass(frozen=True)
class Cell:
    """What a caller proved to be. ``images``: repository → digests of manifests."""

    namespace: str
    images: dict[str, frozenset[str]] = field(hash=False)


class Grants:
    """The file as it is now."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read: tuple[int, int, int] | None = None
        self._cells: dict[str, tuple[str, Cell]] = {}

    def refresh(self) -> bool:
        """Read it again if it was replaced; whether there is one. A damaged one grants nothing."""
        try:
            found = self._path.stat()
            stamp = (found.st_ino, found.st_mtime_ns, found.st_size)
            if stamp != self._read:
                self._cells = _parse(self._path.read_bytes())
                self._read = stamp
        except OSError:
            self._cells, self._read = {}, None
            return False
        return True

    def cell(self, namespace: str, token: str) -> Cell | None:
        """The cell whose token it is; None if it is nobody's, in the same time whoever is asked for."""
        given = hashlib.sha256(token.encode()).hexdigest()
        expected, cell = self._cells.get(namespace, ("", None))
        return cell if hmac.compare_digest(given, expected or "0" * len(given)) else None


def _parse(text: bytes) -> dict[str, tuple[str, Cell]]:
    found: dict[str, tuple[str, Cell]] = {}
    try:
        for namespace, entry in json.loads(text).items():
            images: dict[str, set[str]] = {}
            for image in entry["images"]:
                if (pair := names.reference(image)) is not None:
                    images.setdefault(pair[0], set()).add(pair[1])
            frozen = {repository: frozenset(digests) for repository, digests in images.items()}
            found[namespace] = (str(entry["pull"]), Cell(namespace, frozen))
    except (ValueError, LookupError, TypeError, AttributeError):
        return {}
    return found
