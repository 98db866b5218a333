"""``python -m dataplane.agent``: the node agent, as root."""

from __future__ import annotations

import logging
import sys

from dataplane.agent import node, programs
from dataplane.agent.kernel import KernelError
from dataplane.agent.node import Agent
from infra import config as installation


def main() -> int:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    config = installation.load()
    try:
        Agent(config).run()
    except KernelError as error:
        logging.error("the node can't enforce isolation, so nothing is started: %s", error)
        programs.report(config, str(error), node.facts())
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
