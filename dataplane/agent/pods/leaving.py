"""The plane's chart is taken away: what the agent put on its node goes too, unless pods of cells are still there.

The keeper sees it first, takes the plugin out of the chain, and asks the agent by a file. The agent believes
only the cluster. With pods of cells on the node everything stays in force; without, the agent gives its place
to ``dataplane.node.clear``. Either is said in another file, for which the keeper waits.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dataplane.agent.pods.cluster import NAMESPACE, Cluster
from infra.config import Config

log = logging.getLogger("cytoplane.agent")
#: A ConfigMap that the chart's hook makes before anything is taken away.
LEAVING = "leaving"
#: What is said in the second file.
KEPT, CLEARED = "kept", "cleared"
_PROGRAM = "dataplane.node.clear"


def asked_file(config: Config) -> Path:
    """There while the keeper asks."""
    return config.run / "leaving"


def left_file(config: Config) -> Path:
    """What the agent did about it."""
    return config.run / "left"


def announced(cluster: Cluster, pod: str) -> bool:
    """Whether the chart is being taken away. Raises ``ClusterError``.

    ``pod``: the asker's own. What was said of agents before, and isn't swept away yet, isn't about this one:
    the chart was put in again.
    """
    said = cluster._send("GET", f"/api/v1/namespaces/{NAMESPACE}/configmaps/{LEAVING}")
    if said is None:
        return False
    own = cluster._send("GET", f"/api/v1/namespaces/{NAMESPACE}/pods/{pod}") if pod else None
    return own is None or bool(_owners(said) & _owners(own))


def _owners(found: Mapping[str, Any]) -> set[str]:
    return {owner["uid"] for owner in found["metadata"].get("ownerReferences") or []}


class Leaving:
    """An agent's part in it; ``pod`` is what the agent runs in."""

    def __init__(self, config: Config, cluster: Cluster, pod: str) -> None:
        self._config, self._cluster, self._pod = config, cluster, pod

    def resume(self) -> None:
        """Before anything is set up: a node that was cleared already stays so. May not return; raises
        ``ClusterError``."""
        if self._said() == CLEARED and self._announced():
            self._go()

    def look(self, has_pods: bool) -> None:
        """Leave if that is asked for and nobody's pods need this node; ``has_pods``: whether the agent knows
        of any. May not return; raises ``ClusterError``."""
        if not self._announced():
            return
        # What the agent has forgotten, the cluster may know.
        if has_pods or self._cluster.pods_on(self._config.node):
            if self._said() != KEPT:
                log.warning("the plane leaves this node, but pods of cells are here: all stays in force")
                left_file(self._config).write_text(KEPT)
            return
        self._go()

    def _announced(self) -> bool:
        # Without a pod of its own it isn't the chart's.
        return bool(self._pod) and asked_file(self._config).exists() and announced(self._cluster, self._pod)

    def _said(self) -> str:
        try:
            return left_file(self._config).read_text()
        except OSError:
            return ""

    def _go(self) -> None:
        log.info("the plane leaves this node: what was put on it is taken away")
        os.execv(sys.executable, [sys.executable, "-m", _PROGRAM])  # noqa: S606
