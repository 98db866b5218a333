"""Images for a cluster without a registry: made from a few files, and put into the nodes' containerd."""

from __future__ import annotations

import hashlib
import io
import json
import os
import platform
import subprocess
import sys
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from infra import base_recipe
from infra.cluster import settings
from infra.cluster.settings import NODES, Cluster
from infra.kubernetes import binaries

#: What holds a pod's namespaces.
PAUSE = "cytoplane.dev/pause:1"
#: A shell, ``wget`` (Debian's falls over its own ``-T``: use ``timeout``), ``httpd``, ``nc``, for tests.
BUSYBOX = "cytoplane.dev/busybox:1"
#: Containerd's own names for its namespace and for the name of an image in an archive.
NAMESPACE = "k8s.io"
_NAME = "io.containerd.image.name"


def archive(name: str, files: dict[str, tuple[bytes, int]], links: dict[str, str], **config: Any) -> bytes:
    """An OCI archive of one layer. ``files`` are path → (content, mode); ``config`` is Docker's."""
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        folders = {parent for path in (*files, *links) for parent in Path(path).parents} - {Path()}
        for folder in sorted({*folders, Path("tmp")}):
            entry = tarfile.TarInfo(str(folder))
            entry.type, entry.mode = tarfile.DIRTYPE, 0o1777 if folder == Path("tmp") else 0o755
            tar.addfile(entry)
        for path, (content, mode) in files.items():
            entry = tarfile.TarInfo(path)
            entry.size, entry.mode = len(content), mode
            tar.addfile(entry, io.BytesIO(content))
        for path, target in links.items():
            entry = tarfile.TarInfo(path)
            entry.type, entry.linkname = tarfile.SYMTYPE, target
            tar.addfile(entry)
    blobs: dict[str, bytes] = {}

    def blob(content: bytes, kind: str) -> dict[str, Any]:
        digest = hashlib.sha256(content).hexdigest()
        blobs[digest] = content
        return {"mediaType": kind, "digest": f"sha256:{digest}", "size": len(content)}

    oci = "application/vnd.oci.image"
    root = blob(layer.getvalue(), f"{oci}.layer.v1.tar")
    settings = {
        "architecture": _architecture(),
        "os": "linux",
        "config": config,
        "rootfs": {"type": "layers", "diff_ids": [root["digest"]]},
    }
    kind = f"{oci}.manifest.v1+json"
    manifest = {
        "schemaVersion": 2,
        "mediaType": kind,
        "config": blob(json.dumps(settings).encode(), f"{oci}.config.v1+json"),
        "layers": [root],
    }
    entry_of_index = blob(json.dumps(manifest).encode(), kind)
    entry_of_index["annotations"] = {_NAME: name, "org.opencontainers.image.ref.name": name.split(":")[-1]}
    index = {"schemaVersion": 2, "manifests": [entry_of_index]}
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w") as tar:
        contents = {"oci-layout": b'{"imageLayoutVersion":"1.0.0"}', "index.json": json.dumps(index).encode()}
        contents |= {f"blobs/sha256/{digest}": content for digest, content in blobs.items()}
        for path, content in contents.items():
            entry = tarfile.TarInfo(path)
            entry.size, entry.mode = len(content), 0o644
            tar.addfile(entry, io.BytesIO(content))
    return output.getvalue()


def _architecture() -> str:
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())


def pause() -> bytes:
    """The image that every pod needs."""
    program = (binaries.cache() / "pause").read_bytes()
    return archive(PAUSE, {"pause": (program, 0o755)}, {}, Entrypoint=["/pause"], User="65534:65534")


def busybox() -> bytes:
    """The image that tests use."""
    program = binaries.cache() / "busybox"
    files = {
        "bin/busybox": (program.read_bytes(), 0o755),
        "etc/passwd": (b"root:x:0:0::/:/bin/sh\n", 0o644),
    }
    applets = subprocess.run([program, "--list"], capture_output=True, text=True, check=True).stdout.split()
    links = {f"bin/{applet}": "busybox" for applet in applets if applet != "busybox"}
    return archive(BUSYBOX, files, links, Env=["PATH=/bin"], Cmd=["/bin/sh"])


def present(cluster: Cluster, node: int) -> set[str]:
    """Names of the images that a node has. Raises ``CalledProcessError``."""
    command = [*_ctr(node), "images", "list", "--quiet"]
    done = subprocess.run(
        command, env=cluster_environment(cluster), capture_output=True, check=True, text=True
    )
    return set(done.stdout.split())


def load(cluster: Cluster, content: bytes | Path, nodes: Sequence[int] = NODES) -> None:
    """Put an OCI or Docker archive into nodes, all at once. Raises ``RuntimeError`` with what was said.

    Its images have the names that the archive gives them, and one that gives none is refused. No name is given
    to the archive's index: an image of the same name takes that over, and containerd may then collect the index
    before it is unpacked.
    """
    running = []
    for node in nodes:
        source: Any = content.open("rb") if isinstance(content, Path) else subprocess.PIPE
        process = subprocess.Popen(
            [*_ctr(node), "images", "import", "-"],
            stdin=source,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=cluster_environment(cluster),
        )
        running.append((node, process, None if isinstance(content, Path) else content))
    refused = {}
    for node, process, data in running:
        said, _ = process.communicate(data)
        if process.returncode:
            refused[node] = said.decode(errors="replace")
        elif not said:
            # ctr passes over what has no name.
            refused[node] = "the archive names no image; save it by its name"
    for node, told in refused.items():
        raise RuntimeError(f"node{node} doesn't take the image: {told[-500:]}")


def load_base(cluster: Cluster) -> str:
    """Put the platform's base image into every node that lacks it; its name. Raises ``RuntimeError``."""
    lacking = [node for node in NODES if base_recipe.BASE not in present(cluster, node)]
    if lacking:
        base_recipe.make(cluster.cache)
        load(cluster, base_recipe.archive_in(cluster.cache), lacking)
    return base_recipe.BASE


def _ctr(node: int) -> list[str]:
    enter = [sys.executable, "-m", "infra.cluster.enter", f"node{node}", "--"]
    return [*enter, "ctr", "--namespace", NAMESPACE]


def cluster_environment(cluster: Cluster) -> dict[str, str]:
    """What a program of this project needs to know which cluster is meant."""
    repository = Path(__file__).resolve().parents[2]
    return {
        **os.environ,
        "PYTHONPATH": f"{repository}:{repository}/platform",
        "CYTOPLANE_CLUSTER_HOME": str(cluster.home),
        "CYTOPLANE_CLUSTER_NET": str(cluster.number),
        "CYTOPLANE_CLUSTER_CNI": cluster.cni,
        "CYTOPLANE_CACHE": str(cluster.cache),
    }


def main() -> int:
    """``python -m infra.cluster.images``: the base image; with ``ARCHIVE`` as argument any other."""
    cluster = settings.load()
    try:
        if len(sys.argv) == 1:
            print(load_base(cluster))
        else:
            load(cluster, Path(sys.argv[1]))
    except (OSError, RuntimeError, subprocess.CalledProcessError) as error:
        print(f" !     {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
