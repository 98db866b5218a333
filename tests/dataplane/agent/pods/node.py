"""A node's real agent, as a process there, and what it has written down."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from infra.cluster.images import cluster_environment
from infra.cluster.settings import Cluster

#: A node's own state directory, as the node sees it.
HOME = Path("/var/lib/cytoplane")


class Agent:
    """The agent of a node, as a process there."""

    def __init__(self, cluster: Cluster, node: int) -> None:
        self.cluster, self.node = cluster, node
        self.process: subprocess.Popen[str] | None = None

    @property
    def home(self) -> Path:
        """Its state directory, as the machine sees it."""
        return self.cluster.node_home(self.node) / HOME.relative_to("/")

    @property
    def log(self) -> Path:
        return self.home / "driver.log"

    def start(self) -> None:
        command = [sys.executable, "-m", "infra.cluster.enter", f"node{self.node}", "--"]
        command += [sys.executable, "-m", "tests.dataplane.agent.pods.driver"]
        environment = {
            **cluster_environment(self.cluster),
            "CYTOPLANE_HOME": str(HOME),
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        environment.pop("CYTOPLANE_NET", None)
        with self.log.open("a") as log:
            self.process = subprocess.Popen(
                command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True
            )

    def await_ready(self) -> None:
        assert self._line() == "ready", self.said()

    def _line(self) -> str:
        assert self.process is not None and self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def order(self, command: str) -> str:
        assert self.process is not None and self.process.stdin is not None
        self.process.stdin.write(f"{command}\n")
        self.process.stdin.flush()
        return self._line()

    def health(self) -> dict[str, Any]:
        return json.loads(self.order("health"))

    def kill(self) -> None:
        """As a crash ends it."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def said(self) -> str:
        return self.log.read_text()[-3000:]

    def pods(self) -> dict[str, dict[str, Any]]:
        """What it has kept of its pods, by replica."""
        with contextlib.suppress(OSError, ValueError):
            kept = json.loads((self.home / "agent/pods.json").read_text())
            return {pod["replica"]: pod for pod in kept}
        return {}
