"""A real agent on a node of the test cluster; desired state comes by standard input, as from a control plane.

A line is a command: ``apply FILE`` takes the document as if it had been received, ``health`` prints the
node's view of itself, ``reached`` which desired state is in force and how many replicas are somewhere in it,
``passed`` what went through because of audit since the last time, ``load`` what replicas did since then,
``denied`` what didn't go through. Prints ``ready`` once it has taken up what was.
"""

from __future__ import annotations

import json
import logging
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dataplane.agent.commands import CantEnter, Command
from dataplane.agent.node import Agent
from dataplane.agent.state import State
from dataplane.desired import PLATFORM
from infra import config as installation


def entered(agent: Agent, order: dict[str, Any]) -> dict[str, Any]:
    """What a command in a replica of this node printed, and how it ended; it has no input."""
    try:
        process = agent.engine.enter(Command(1, order["replica"], order["words"], order["tty"], (30, 100)))
    except CantEnter as error:
        return {"refused": str(error)}
    if not order["tty"]:
        process.close_input()
    said = {"out": "", "err": ""}
    for stream, data in process.output():
        said[stream] += data.decode()
    code = process.wait()
    process.kill()
    process.close()
    return {"code": code, **said}


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    agent = Agent(installation.load())
    agent.prepare()
    reached: dict[str, int] = {}
    published = agent.engine.published

    def note(document: Mapping[str, Any]) -> None:
        published(document)
        reached.update(generation=document["generation"], placements=len(document["placements"]))

    agent.engine.published = note  # type: ignore[method-assign]
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
        elif command == "reached":
            print(json.dumps(reached), flush=True)
        elif command == "passed":
            rows = [flow for flow in agent.kernel.flows() if flow.allowed and flow.reason != "OK"]
            said = [[row.source, row.destination, row.port, row.protocol] for row in rows]
            print(json.dumps(said), flush=True)
        elif command == "denied":
            rows = [flow for flow in agent.kernel.flows() if not flow.allowed]
            print(json.dumps([[r.source, r.destination, r.port, r.reason] for r in rows]), flush=True)
        elif command == "load":
            print(json.dumps(agent._meter.read(agent.engine.measured())), flush=True)
        elif command == "enter":
            print(json.dumps(entered(agent, json.loads(argument))), flush=True)
        elif command == "published":
            print(json.dumps(sorted(agent.engine.running())), flush=True)


if __name__ == "__main__":
    main()
