"""A node's whole agent whose desired state comes by standard input, in the form of the control plane's answers.

A line is the name of a file with an answer (``/agent/desired``); ``taken`` is printed once the agent has it.
What it reports is written out and then dropped.
"""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path
from typing import Any

from dataplane.agent.node import Agent
from dataplane.client import ControlPlane
from infra.config import Config, load


class _Heard(ControlPlane):
    """Whoever hears every report: without one the agent would keep what it can't deliver."""

    @property
    def enrolled(self) -> bool:
        return True

    def post(self, path: str, document: dict[str, Any], *, timeout: float = 0) -> dict[str, Any]:
        return {"bytes": len(json.dumps(document))}


class Fed(Agent):
    """The agent with another source of desired state; all else is its own."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.control = _Heard(config.agent_dir, config.control_plane)

    def _follow(self) -> None:
        for line in sys.stdin:
            answer = json.loads(Path(line.strip()).read_text())
            self._take(self._state.after(answer), answer["base"])
            print("taken", flush=True)


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    # As the agent's own beginning has it.
    sys.setswitchinterval(0.0005)
    Fed(load()).run()


if __name__ == "__main__":
    main()
