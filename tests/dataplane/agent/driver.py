"""A real agent whose desired state comes by standard input instead of from a control plane.

A line is a command: ``apply FILE`` accepts the document as if it had been received, ``health`` prints
the node's view of itself. Prints ``ready`` once it has taken up what was. A program of its own, so that
it can be killed and so that another version of the platform can take its place.
"""

from __future__ import annotations

import json
import sys
import threading
from pathlib import Path

from dataplane.agent.engines.machine import Machine
from dataplane.agent.node import Agent
from dataplane.agent.replica import ReplicaWorker
from dataplane.agent.state import State
from dataplane.desired import PLATFORM
from infra import config as installation


class Worker(ReplicaWorker):
    """A replica without podman: only its network; tests open sockets there."""

    def _step(self) -> None:
        self._ensure_network()
        self._set("healthy")
        self._stopping.wait(0.2)

    def _end(self) -> None:
        self.kernel.remove_namespace(self.id, self.endpoint["number"])
        self._left()
        self._set("stopped")


def main() -> None:
    Machine.worker = Worker
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


if __name__ == "__main__":
    main()
