"""Containers of pods as containerd keeps them on the node: a folder for each, with its settings and its process."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

from dataplane.agent.commands import CantEnter
from dataplane.agent.commands.entering import Target

#: Where containerd keeps the containers of kubelet's.
FOLDER = Path("/run/containerd/io.containerd.runtime.v2.task/k8s.io")
_SANDBOX, _NAME = "io.kubernetes.cri.sandbox-id", "io.kubernetes.cri.container-name"


def find(sandbox: str, name: str, folder: Path = FOLDER) -> Target:
    """A container of a pod by its sandbox's id and its own name. Raises ``CantEnter``."""
    try:
        entries = list(folder.iterdir())
    except OSError:
        raise CantEnter(
            "The plane's agents may not enter containers: its operator hasn't allowed it, or the cluster's "
            "runtime isn't containerd."
        ) from None
    for entry in entries:
        # Containers come and go meanwhile.
        with contextlib.suppress(OSError, ValueError, KeyError):
            document = json.loads((entry / "config.json").read_text())
            notes = document.get("annotations") or {}
            if notes.get(_SANDBOX) == sandbox and notes.get(_NAME) == name:
                return Target(entry.name, int((entry / "init.pid").read_text()), document)
    raise CantEnter("The replica doesn't run.")
