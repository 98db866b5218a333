"""What a node's keeper asks of the cluster: its own node's taint."""

from __future__ import annotations

import json
from typing import Any

from dataplane.agent.pods.cluster import Cluster

TAINT = {"key": "cytoplane.dev/unprotected", "effect": "NoSchedule"}


def taint(cluster: Cluster, node: str, wanted: bool) -> None:
    """Have a node carry the taint or not; others stay. Raises ``ClusterError``."""
    path = f"/api/v1/nodes/{node}"
    found = cluster._send("GET", path)
    if found is None:
        return
    taints: list[dict[str, Any]] = found.get("spec", {}).get("taints") or []
    others = [entry for entry in taints if entry.get("key") != TAINT["key"]]
    fresh = [*others, TAINT] if wanted else others
    if [entry.get("key") for entry in fresh] == [entry.get("key") for entry in taints]:
        return
    # With the version that was read: whoever changed it meanwhile isn't overwritten.
    patch = {"metadata": {"resourceVersion": found["metadata"]["resourceVersion"]}, "spec": {"taints": fresh}}
    headers = {"Content-Type": "application/merge-patch+json"}
    cluster._send("PATCH", path, content=json.dumps(patch), headers=headers)
