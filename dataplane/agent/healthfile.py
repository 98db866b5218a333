"""What the agent says about itself, in a file: for whoever asks on the node, where there is no control plane."""

from __future__ import annotations

import json
import logging
import time
from typing import Any

from dataplane.client import write_private
from infra.config import Config

log = logging.getLogger("cytoplane.agent")
#: In ``run/agent``, root's alone.
HEALTH_FILE = "health.json"


def write(config: Config, health: dict[str, Any], enrolled: bool) -> None:
    """Replace it; a disk that is full stops nothing."""
    said = {"at": time.time(), "enrolled": enrolled, "problems": [str(p) for p in health["problems"]]}
    folder = config.run / "agent"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_private(folder / HEALTH_FILE, json.dumps(said).encode())
    except OSError as error:
        log.warning("the agent's health can't be written: %s", error)
