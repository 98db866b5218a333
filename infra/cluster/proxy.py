"""kube-proxy in the nodes' own namespaces, on request: nothing else here translates service addresses."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence

from infra import supervisor
from infra.cluster.images import cluster_environment
from infra.cluster.settings import NODES, Cluster
from infra.kubernetes import binaries

_MEANT_TO_RUN = {"STARTING", "RUNNING", "BACKOFF"}
#: kubelet writes some rules of its own, and again when somebody takes them away.
_OF_SERVICES = ("-A KUBE-SERVICES", "-A KUBE-SVC", "-A KUBE-SEP", "-A KUBE-NODEPORTS")


def switch(cluster: Cluster, on: bool, nodes: Sequence[int] = NODES) -> None:
    """Start it, or end it and take its rules away. Raises ``CalledProcessError``."""
    parts = {node: f"node{node}-kube-proxy" for node in nodes}
    if on:
        supervisor.start(cluster, parts.values())
        return
    running = runs(cluster)
    supervisor.stop(cluster, parts.values())
    for node, part in parts.items():
        if part in running:
            enter = [sys.executable, "-m", "infra.cluster.enter", f"node{node}", "--"]
            command = [*enter, str(binaries.cache() / "kube-proxy"), "--cleanup"]
            # It complains of what the kernel lacks, rules of other modes for instance, and goes on.
            subprocess.run(command, env=cluster_environment(cluster), capture_output=True, check=False)


def runs(cluster: Cluster) -> set[str]:
    """Those that are meant to run."""
    found = supervisor.states(cluster)
    return {name for name, state in found.items() if name.endswith("-kube-proxy") and state in _MEANT_TO_RUN}


def rules(cluster: Cluster, node: int) -> int:
    """How many rules kube-proxy has written on a node: what a packet may have to pass."""
    enter = [sys.executable, "-m", "infra.cluster.enter", f"node{node}", "--"]
    command = [*enter, "iptables-save", "-t", "nat"]
    done = subprocess.run(
        command, env=cluster_environment(cluster), capture_output=True, text=True, check=True
    )
    return sum(line.startswith(_OF_SERVICES) for line in done.stdout.splitlines())
