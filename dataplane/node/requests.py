"""What a node's keeper asks of the cluster: its own node's taint, whether the chart goes."""

from __future__ import annotations

import json
from typing import Any

from dataplane.agent.pods.cluster import NAMESPACE, Cluster

TAINT = {"key": "cytoplane.dev/unprotected", "effect": "NoSchedule"}
#: A ConfigMap that the chart's hook makes before anything is taken away.
LEAVING = "leaving"


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


def leaving(cluster: Cluster, pod: str) -> bool:
    """Whether the chart is being taken away. Raises ``ClusterError``.

    ``pod``: the keeper's own. What was said of agents before, and isn't swept away yet, isn't about this one:
    the chart was put in again.
    """
    said = cluster._send("GET", f"/api/v1/namespaces/{NAMESPACE}/configmaps/{LEAVING}")
    if said is None:
        return False
    own = cluster._send("GET", f"/api/v1/namespaces/{NAMESPACE}/pods/{pod}") if pod else None
    return own is None or bool(_owners(said) & _owners(own))


def _owners(found: dict[str, Any]) -> set[str]:
    return {owner["uid"] for owner in found["metadata"].get("ownerReferences") or []}
