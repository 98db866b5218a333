"""Kubernetes' executables in the cache, and building what is missing there."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from infra import config as installation

VERSION = "1.20.2"


class NotBuilt(RuntimeError):
    """The binaries aren't in the cache; ``infra/kubernetes/build.sh`` makes them."""


def cache() -> Path:
    """Where the built binaries are kept."""
    return installation.load().cache / f"kubernetes-{VERSION}"


def built(name: str = "kube-apiserver") -> bool:
    """Whether a binary is in the cache."""
    return (cache() / name).exists()


def build(*names: str) -> None:
    """Build what is missing in the cache; takes minutes the first time.

    Raises ``CalledProcessError``; what failed is on stderr.
    """
    script = Path(__file__).with_name("build.sh")
    environment = {**os.environ, "CYTOPLANE_CACHE": str(installation.load().cache)}
    subprocess.run([str(script), *names], check=True, stdout=subprocess.DEVNULL, env=environment)
