"""A real agent on a node of the test cluster; desired state comes by standard input, as from a control plane.

A line is a command: ``apply FILE`` takes the document as if it had been received, ``health`` prints the
node's view of itself, ``applied`` the generation that is in force. Prints ``ready`` once it has taken up
what was.
"""

from __future__ import annotations

import json
import logging
import sys
import threading
from pathlib import Path

from dataplane.agent.node import Agent
from dataplane.agent.state import State
from dataplane.desired import PLATFORM
from infra import config as installation


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    agent = Agent(installation.load())
    agent.prepare()
    agent._restore()
    assert agent._watch is not None
    agent._watch.start()
    threading.Thread(target=agent._apply_loop, daemon=True).start()
    print("ready", flush=True)
    for line in sys.stdin:
        command, _, argument = line.strip().partition(" ")
        if command == "apply":
            document = json.loads(Path(argument).read_text())
            fresh = State(1, document["generation"], "", {PLATFORM: json.dumps(document).encode()})
            agent._take(fresh, agent._state.generation)
            print("accepted", flush=True)
        elif command == "health":
            print(json.dumps(agent.health()), flush=True)
        elif command == "published":
            print(json.dumps(sorted(agent.engine.running())), flush=True)


if __name__ == "__main__":
    main()
