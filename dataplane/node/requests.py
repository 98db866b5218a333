"""What a node's keeper asks of the cluster: its own node's taint, its own token, whether the chart goes."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

from dataplane.agent.pods.cluster import NAMESPACE, Cluster
from dataplane.client import write_private

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


def bring_token(cluster: Cluster, node: str, place: Path, certificate: Path) -> None:
    """Write the node's one-time token where its agent looks; delete the secret once the agent has used it.

    Another token than the one that was seen last is for an agent that must enrol anew, whatever it has.
    Raises ``ClusterError``.
    """
    path = f"/api/v1/namespaces/{NAMESPACE}/secrets/enrol-{node}"
    found = cluster._send("GET", path)
    if found is None:
        return
    text = base64.b64decode((found.get("data") or {}).get("token", ""))
    mark = place.with_name("enrolment.seen")
    if not mark.exists() or mark.read_bytes() != text:
        write_private(place, text)
        write_private(mark, text)
    elif certificate.exists() and not place.exists():
        cluster._send("DELETE", path)


def leaving(cluster: Cluster) -> bool:
    """Whether the chart is being taken away. Raises ``ClusterError``."""
    return cluster._send("GET", f"/api/v1/namespaces/{NAMESPACE}/configmaps/{LEAVING}") is not None
