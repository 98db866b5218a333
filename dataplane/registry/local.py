"""The self-check's image, made of the program that the agent's image carries: nodes need no registry for it."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import platform
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dataplane.registry import names

_OCI = "application/vnd.oci.image"
_MANIFEST = f"{_OCI}.manifest.v1+json"


@dataclass(frozen=True)
class Piece:
    """A manifest or a blob."""

    kind: str
    digest: str
    content: bytes


class Local:
    """An image of one file; the same digests for the same program."""

    def __init__(self, program: Path) -> None:
        self._pieces: dict[str, Piece] = {}
        self._manifest = ""
        if program.exists():
            self._make(program.read_bytes())

    def _add(self, content: bytes, kind: str) -> dict[str, Any]:
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        self._pieces[digest] = Piece(kind, digest, content)
        return {"mediaType": kind, "digest": digest, "size": len(content)}

    def _make(self, program: bytes) -> None:
        plain = io.BytesIO()
        with tarfile.open(fileobj=plain, mode="w") as tar:
            entry = tarfile.TarInfo("check")
            entry.size, entry.mode = len(program), 0o755
            tar.addfile(entry, io.BytesIO(program))
        layer = self._add(gzip.compress(plain.getvalue(), mtime=0), f"{_OCI}.layer.v1.tar+gzip")
        settings = {
            "architecture": {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), ""),
            "os": "linux",
            "config": {"User": "65534:65534", "Entrypoint": ["/check"], "WorkingDir": "/"},
            "rootfs": {
                "type": "layers",
                "diff_ids": [f"sha256:{hashlib.sha256(plain.getvalue()).hexdigest()}"],
            },
        }
        config = self._add(json.dumps(settings, sort_keys=True).encode(), f"{_OCI}.config.v1+json")
        manifest = {"schemaVersion": 2, "mediaType": _MANIFEST, "config": config, "layers": [layer]}
        self._manifest = self._add(json.dumps(manifest, sort_keys=True).encode(), _MANIFEST)["digest"]

    def piece(self, asked: names.Asked) -> Piece | None:
        """A piece of it; None for everything else."""
        if asked.repository != names.CHECK_REPOSITORY:
            return None
        if asked.kind == "manifests":
            other = asked.reference.startswith("sha256:") and asked.reference != self._manifest
            return None if other else self._pieces.get(self._manifest)
        return self._pieces.get(asked.reference) if asked.reference != self._manifest else None
