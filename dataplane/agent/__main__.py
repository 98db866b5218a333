"""``python -m dataplane.agent``: the node agent, as root."""

from __future__ import annotations

import logging
import os
import signal
import sys

from dataplane.agent.node import Agent
from infra import config as installation


def main() -> int:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    # As the first process of a container it would otherwise be asked in vain.
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    # A change that closes something must not wait for a long look at everything else.
    sys.setswitchinterval(0.0005)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    Agent(installation.load()).run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
