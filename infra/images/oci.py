"""A store of images on disk, in OCI's own layout: layers that several images share lie in it once.

What goes in is brought into one form (order, times, compression), so that equal content has equal digests
whoever made it and whenever.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import platform
import tarfile
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

_OCI = "application/vnd.oci.image"
MANIFEST = f"{_OCI}.manifest.v1+json"
#: Containerd's own name for the name of an image in an archive, and OCI's for its tag.
_NAME, _TAG = "io.containerd.image.name", "org.opencontainers.image.ref.name"
_LAYOUT = b'{"imageLayoutVersion":"1.0.0"}'
#: Of everything that says when it was made.
EPOCH = "1970-01-01T00:00:00Z"
_LEVEL = 6


@dataclass(frozen=True)
class Layer:
    """A layer as manifests name it; ``diff_id`` is the digest before compression."""

    digest: str
    size: int
    diff_id: str


@dataclass(frozen=True)
class Image:
    """An image of the store. ``config`` is Docker's."""

    name: str
    layers: tuple[Layer, ...]
    config: dict[str, Any] = field(hash=False)


def architecture() -> str:
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())


class _Digesting(io.RawIOBase):
    """Writes on and keeps the digest and the number of bytes."""

    def __init__(self, target: BinaryIO) -> None:
        self._target, self._digest, self.size = target, hashlib.sha256(), 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._digest.update(data)
        self.size += len(data)
        return self._target.write(data)

    @property
    def digest(self) -> str:
        return f"sha256:{self._digest.hexdigest()}"


Entry = tuple[tarfile.TarInfo, bytes | None]


def file(path: str, content: bytes, mode: int = 0o644) -> Entry:
    """An entry of a layer: a file of root's."""
    entry = tarfile.TarInfo(path)
    entry.size, entry.mode = len(content), mode
    return entry, content


def link(path: str, target: str) -> Entry:
    entry = tarfile.TarInfo(path)
    entry.type, entry.linkname, entry.mode = tarfile.SYMTYPE, target, 0o777
    return entry, None


def folder(path: str, mode: int = 0o755, owner: int = 0) -> Entry:
    entry = tarfile.TarInfo(path)
    entry.type, entry.mode, entry.uid, entry.gid = tarfile.DIRTYPE, mode, owner, owner
    return entry, None


def with_folders(entries: Iterable[Entry]) -> list[Entry]:
    """The same in order, with the folders that lead to them."""
    found = {entry.name: (entry, content) for entry, content in entries}
    for name in list(found):
        for parent in Path(name).parents:
            if str(parent) != ".":
                found.setdefault(str(parent), folder(str(parent)))
    return [found[name] for name in sorted(found)]


class Store:
    """A folder of images. One writer at a time: ``infra.images`` holds a lock around it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._blobs = root / "blobs" / "sha256"

    def prepare(self) -> None:
        for path in (self._blobs, self.root / "layers"):
            path.mkdir(parents=True, exist_ok=True)
        (self.root / "oci-layout").write_bytes(_LAYOUT)

    def path(self, digest: str) -> Path:
        return self._blobs / digest.removeprefix("sha256:")

    # Layers.
    def layer(self, name: str, key: str) -> Layer | None:
        """A layer that was made before from the same inputs."""
        record = self.root / "layers" / f"{name}-{key}.json"
        try:
            found = Layer(**json.loads(record.read_text()))
        except (OSError, ValueError, TypeError):
            return None
        return found if self.path(found.digest).exists() else None

    def add_layer(self, name: str, key: str, entries: Iterable[Entry]) -> Layer:
        """Write a layer; its times and names of owners are dropped."""
        fresh = self._blobs / f".{name}.new"
        with fresh.open("wb") as target:
            packed = _Digesting(target)
            # No name and no time in the header: they would be in the digest.
            with gzip.GzipFile("", "wb", _LEVEL, packed, mtime=0) as zipped:  # type: ignore[arg-type]
                plain = _Digesting(zipped)  # type: ignore[arg-type]
                with tarfile.open(fileobj=plain, mode="w|", format=tarfile.PAX_FORMAT) as tar:  # type: ignore[call-overload]
                    for entry, content in entries:
                        entry.mtime, entry.uname, entry.gname = 0, "", ""
                        entry.pax_headers = {}
                        tar.addfile(entry, None if content is None else io.BytesIO(content))
        made = Layer(packed.digest, packed.size, plain.digest)
        fresh.rename(self.path(made.digest))
        for old in (self.root / "layers").glob(f"{name}-*.json"):
            old.unlink()
        (self.root / "layers" / f"{name}-{key}.json").write_text(json.dumps(asdict(made)))
        return made

    # Images.
    def _blob(self, content: bytes, kind: str) -> dict[str, Any]:
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        if not self.path(digest).exists():
            fresh = self._blobs / ".blob.new"
            fresh.write_bytes(content)
            fresh.rename(self.path(digest))
        return {"mediaType": kind, "digest": digest, "size": len(content)}

    def _manifest(self, image: Image) -> dict[str, Any]:
        settings = {
            "architecture": architecture(),
            "os": "linux",
            "created": EPOCH,
            "config": image.config,
            "rootfs": {"type": "layers", "diff_ids": [layer.diff_id for layer in image.layers]},
        }
        manifest = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": self._blob(json.dumps(settings, sort_keys=True).encode(), f"{_OCI}.config.v1+json"),
            "layers": [
                {"mediaType": f"{_OCI}.layer.v1.tar+gzip", "digest": layer.digest, "size": layer.size}
                for layer in image.layers
            ],
        }
        return self._blob(json.dumps(manifest, sort_keys=True).encode(), MANIFEST)

    def write(self, images: Iterable[Image]) -> dict[str, str]:
        """Make the store hold these and nothing else; name → digest of its manifest."""
        entries = []
        for image in images:
            entry = self._manifest(image)
            entry["annotations"] = {_TAG: image.name}
            entries.append(entry)
        fresh = self.root / ".index.new"
        fresh.write_text(json.dumps({"schemaVersion": 2, "manifests": entries}, indent=1))
        fresh.rename(self.root / "index.json")
        self._prune()
        return {entry["annotations"][_TAG]: entry["digest"] for entry in entries}

    def images(self) -> dict[str, dict[str, Any]]:
        """Name → its entry in the index."""
        try:
            index = json.loads((self.root / "index.json").read_text())
        except OSError:
            return {}
        return {entry["annotations"][_TAG]: entry for entry in index["manifests"]}

    def blobs_of(self, digest: str) -> list[str]:
        """The digests that an image consists of, its manifest last."""
        manifest = json.loads(self.path(digest).read_bytes())
        return [*(part["digest"] for part in (manifest["config"], *manifest["layers"])), digest]

    def size_of(self, digest: str) -> int:
        """Bytes that fetching an image takes if none of its layers is there."""
        return sum(self.path(blob).stat().st_size for blob in self.blobs_of(digest))

    def _prune(self) -> None:
        kept = {blob for entry in self.images().values() for blob in self.blobs_of(entry["digest"])}
        records = [json.loads(path.read_text()) for path in (self.root / "layers").glob("*.json")]
        kept |= {record["digest"] for record in records}
        for path in self._blobs.iterdir():
            if f"sha256:{path.name}" not in kept:
                path.unlink()

    def archive(self, target: Path, names: dict[str, str]) -> None:
        """One OCI archive: image of the store → the name it gets in there. Shared layers are in it once."""
        known = self.images()
        entries, blobs = [], []
        for image, name in names.items():
            entry = {**known[image], "annotations": {_NAME: name, _TAG: name.rpartition(":")[2]}}
            entries.append(entry)
            blobs += self.blobs_of(entry["digest"])
        index = json.dumps({"schemaVersion": 2, "manifests": entries}).encode()
        fresh = target.with_name(f".{target.name}.{os.getpid()}")
        with tarfile.open(fresh, "w") as tar:
            for name, content in (("oci-layout", _LAYOUT), ("index.json", index)):
                entry_of_tar, _ = file(name, content)
                tar.addfile(entry_of_tar, io.BytesIO(content))
            for digest in dict.fromkeys(blobs):
                path = self.path(digest)
                described = tarfile.TarInfo(f"blobs/sha256/{path.name}")
                described.size, described.mode = path.stat().st_size, 0o644
                with path.open("rb") as source:
                    tar.addfile(described, source)
        fresh.rename(target)
