"""Agents on both nodes of a development cluster, each with gateway and resolver beside it, without a control plane.

For a cluster that is there for the measurement alone: programs and state stay on its nodes.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from dataplane.agent.pods.cluster import NAMESPACE
from dataplane.cni import build, chain
from infra.bench.clusters import until
from infra.bench.memory import pss
from infra.cluster.client import Client
from infra.cluster.enter import holder
from infra.cluster.images import cluster_environment
from infra.cluster.settings import NODES, Cluster
from infra.config import Config
from infra.kubernetes import binaries

#: A node's state directory, as the node sees it.
HOME = Path("/var/lib/cytoplane")
_BEGIN_SECONDS = 120.0


class Node:
    """A node with an agent that ``fed_agent`` is."""

    def __init__(self, cluster: Cluster, number: int) -> None:
        self._cluster, self.number = cluster, number
        self.name = f"node{number}"
        self.home = cluster.node_home(number) / HOME.relative_to("/")
        self._processes: list[subprocess.Popen[str]] = []

    def prepare(self, config: Config) -> None:
        networks = [*self._cluster.all_pods, *self._cluster.services]
        shutil.rmtree(self.home, ignore_errors=True)
        for folder in ("agent", "gateway", "resolver", "run"):
            (self.home / folder).mkdir(parents=True)
        (self.home / "config.toml").write_text(
            f'engine = "kubernetes"\nnet = {config.net}\nnode_name = "{self.name}"\n'
            f'cluster_networks = "{",".join(map(str, networks))}"\n'
        )
        (self.home / "agent/kubeconfig").write_text(self._cluster.kubeconfig.read_text())

    def start(self, config: Config) -> None:
        """Returns once the agent answers the CNI plugin and the plugin is in the chain."""
        self._start("agent", sys.executable, "-m", "infra.bench.fed_agent")
        socket = HOME / "run/cni.sock"
        until((self.home / "run/cni.sock").exists, _BEGIN_SECONDS, f"the agent of {self.name} isn't up")
        envoy = [str(Path(sys.executable).with_name("envoy")), "-c", f"{HOME}/gateway/bootstrap.json"]
        envoy += ["--concurrency", "1", "--disable-hot-restart", "--log-level", "warning"]
        envoy += ["--base-id", str(100 + 10 * config.net + self.number)]
        for name, words in (("gateway", envoy), ("resolver", [sys.executable, "-m", "dataplane.resolver"])):
            self._start(name, "nsenter", f"--net=/run/netns/{config.name}-{name}", "--", *words)
        root = Path(f"/proc/{holder(self._cluster, self.name)}/root")
        build.put(build.build(binaries.cache().parent), root / "opt/cni/bin")
        chain.install(root / "etc/cni/net.d", socket)

    def _start(self, name: str, *words: str) -> None:
        command = [sys.executable, "-m", "infra.cluster.enter", self.name, "--", *words]
        environment = {**cluster_environment(self._cluster), "CYTOPLANE_HOME": str(HOME)}
        environment.pop("CYTOPLANE_NET", None)
        # Only the agent is told something, and answers.
        way = subprocess.PIPE if name == "agent" else subprocess.DEVNULL
        with (self.home / f"{name}.log").open("a") as log:
            self._processes.append(
                subprocess.Popen(command, env=environment, stdin=way, stdout=way, stderr=log, text=True)
            )

    def stop(self) -> None:
        for process in self._processes:
            process.kill()
            process.wait()

    def give(self, answer: dict[str, Any]) -> None:
        """Hand desired state to the agent, as an answer of the control plane; returns once it has taken it."""
        (self.home / "answer.json").write_text(json.dumps(answer))
        agent = self._processes[0]
        assert agent.stdin is not None and agent.stdout is not None
        try:
            agent.stdin.write(f"{HOME}/answer.json\n")
            agent.stdin.flush()
            taken = agent.stdout.readline().strip() == "taken"
        except BrokenPipeError:
            taken = False
        if not taken:
            raise SystemExit(f"the agent of {self.name} ended:\n{self._said()}")

    def _said(self) -> str:
        return (self.home / "agent.log").read_text()[-2000:]

    def processor(self) -> float:
        """Seconds of processor time of the agent and of what it started, since its beginning."""
        text = Path(f"/proc/{self._processes[0].pid}/stat").read_text()
        # The name is in brackets and may hold anything.
        ticks = map(int, text.rsplit(")", 1)[1].split()[11:15])
        return sum(ticks) / os.sysconf("SC_CLK_TCK")

    def memory(self) -> float:
        """MiB of the agent."""
        return pss(self._processes[0].pid)


def start(cluster: Cluster, client: Client, config: Config) -> list[Node]:
    """Both nodes' agents, started."""
    client.create("/api/v1/namespaces", {"metadata": {"name": NAMESPACE}})
    found = [Node(cluster, number) for number in NODES]
    try:
        for node in found:
            node.prepare(config)
            node.start(config)
    except BaseException:
        stop(found)
        raise
    return found


def stop(nodes: list[Node]) -> None:
    for node in nodes:
        node.stop()
