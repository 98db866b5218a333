"""A real agent that follows a real control plane, but for podman: replicas are only their networks.

A program of its own, as an agent is. Enrols with the token in its folder.
"""

from __future__ import annotations

from dataplane.agent.engines.machine import Machine
from dataplane.agent.node import Agent
from infra import config as installation
from tests.dataplane.agent.driver import Worker


def main() -> None:
    Machine.worker = Worker
    Agent(installation.load()).run()


if __name__ == "__main__":
    main()
