"""``python -m dataplane.node.clear``: takes off a node what its agent put there, in the agent's place.

Programs, tables, interfaces, namespaces and rules of this plane; files in the state directory and forwarding
stay, since others may need them. Afterwards it only stays: a container that ends is started again, as an agent.
"""

from __future__ import annotations

import json
import logging
import signal
import subprocess
import sys
import time

from bpf import loader
from bpf.sys import LayoutError
from dataplane.agent import network
from dataplane.agent.pods import leaving
from dataplane.client import write_private
from infra import config as installation
from infra.config import Config

log = logging.getLogger("cytoplane.agent")
#: Well below what the kubelet's probe allows the file to be old.
_AGAIN_SECONDS = 10.0


def clear(config: Config) -> None:
    """Idempotent; what is somebody else's stays. Raises ``OSError``, ``LoadError`` or ``CalledProcessError``."""
    network.remove_all(config)
    network.remove_rules(config)
    loader.unload(config)


def say(config: Config, problem: str) -> None:
    """For the kubelet's probes: alive, not ready."""
    file = config.run / "agent" / "health.json"
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_private(file, json.dumps({"healthy": False, "problems": [problem]}).encode())


def step(config: Config, done: bool) -> bool:
    """One round; whether the node is clear. What failed is said and tried again. What is done isn't done again:
    the next plane's agent may be at work here before this container ends."""
    try:
        if not done:
            clear(config)
            leaving.left_file(config).write_text(leaving.CLEARED)
    except (OSError, loader.LoadError, LayoutError, subprocess.CalledProcessError) as error:
        log.warning("the node can't be cleared yet: %s", error)
        say(config, f"the plane leaves this node, and something of it can't be taken away yet: {error}")
        return False
    say(config, "the plane has left this node")
    return True


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    # As the first process of a container it would otherwise be asked in vain.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    config, done = installation.load(), False
    while True:
        done = step(config, done)
        time.sleep(_AGAIN_SECONDS)


if __name__ == "__main__":
    main()
