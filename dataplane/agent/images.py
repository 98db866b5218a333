"""Images from the control plane's registry into podman's storage, by digest and with our certificate."""

from __future__ import annotations

import re
import subprocess
import threading
import time
from collections import defaultdict

from dataplane.agent import podman
from dataplane.client import ControlPlane
from infra.config import Config

_REFERENCE = re.compile(r"(t[0-9]+/p[0-9]+)@sha256:([0-9a-f]{64})")
_OURS = re.compile(r"^localhost/cytoplane/t\d+/p\d+:[0-9a-f]{40}$")
#: Seconds that an image stays after it was made, though nothing runs it: the last release may come back.
KEPT = 24 * 3600
_locks: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)


class ImageError(RuntimeError):
    """The image can't be had; the message says why."""


def local_name(reference: str) -> str:
    """What an image is called in podman's storage. Raises ``ImageError`` for what isn't a reference."""
    match = _REFERENCE.fullmatch(reference)
    if not match:
        raise ImageError("the image isn't named by a digest of the platform's registry")
    return f"localhost/cytoplane/{match.group(1)}:{match.group(2)[:40]}"


def ensure(config: Config, control: ControlPlane, client: podman.Podman, reference: str) -> str:
    """Pull an image unless it is there; its local name."""
    name = local_name(reference)
    with _locks[name]:
        if client.image(name):
            return name
        command = [
            "skopeo",
            "copy",
            "--quiet",
            "--src-cert-dir",
            str(control.folder),
            f"docker://{config.control_host}/{reference}",
            f"containers-storage:{name}",
        ]
        done = subprocess.run(
            command,
            env=podman.environment(config),
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
            umask=0o022,  # folders of the storage get it, and a container's user must pass through them
        )
        if done.returncode:
            raise ImageError(f"pulling the image failed: {done.stderr.strip().splitlines()[-1:] or '?'}")
        return name


def prune(client: podman.Podman, references: set[str], now: float | None = None) -> list[str]:
    """Remove images that nothing runs any more; their names. What is needed again is pulled again."""
    wanted = {local_name(reference) for reference in references}
    removed = []
    for image in client.images():
        names = [name for name in image.get("Names") or [] if _OURS.match(name)]
        age = (time.time() if now is None else now) - image.get("Created", 0)
        if names and not wanted & set(names) and age > KEPT:
            for name in names:
                client.remove_image(name)
            removed += names
    return removed
