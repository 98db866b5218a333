"""``python -m dataplane.node.leaving``: tells all keepers that the chart goes, and waits until they have done it."""

from __future__ import annotations

import json
import logging
import sys
import time

from dataplane.agent.pods.cluster import NAMESPACE, Cluster, ClusterError
from dataplane.agent.pods.leaving import LEAVING
from infra import config as installation

log = logging.getLogger("cytoplane.leaving")
#: Name of the chart's DaemonSet.
AGENTS = "node"
_SECONDS = 120.0


def announce(cluster: Cluster) -> None:
    """Say it, by an object that goes with the agents. Raises ``ClusterError``."""
    agents = cluster._send("GET", f"/apis/apps/v1/namespaces/{NAMESPACE}/daemonsets/{AGENTS}")
    if agents is None:
        return
    owner = {"apiVersion": "apps/v1", "kind": "DaemonSet", "name": AGENTS, "uid": agents["metadata"]["uid"]}
    metadata = {"name": LEAVING, "namespace": NAMESPACE, "ownerReferences": [owner]}
    document = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata}
    try:
        cluster._send("POST", f"/api/v1/namespaces/{NAMESPACE}/configmaps", content=json.dumps(document))
    except ClusterError as error:
        if "already exists" not in str(error):
            raise


def keeping(cluster: Cluster) -> list[str]:
    """Nodes whose keeper isn't done: it says so by being ready. Raises ``ClusterError``."""
    selector = {"labelSelector": "app.kubernetes.io/component=node"}
    found = cluster._send("GET", f"/api/v1/namespaces/{NAMESPACE}/pods", params=selector) or {}
    return sorted(
        pod["spec"].get("nodeName", "")
        for pod in found.get("items") or []
        for status in pod["status"].get("containerStatuses") or []
        if status["name"] == "keeper" and status["ready"]
    )


def main() -> int:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    cluster, end = Cluster(installation.load()), time.monotonic() + _SECONDS
    left = ["?"]
    while time.monotonic() < end:
        try:
            announce(cluster)
            if not (left := keeping(cluster)):
                return 0
        except ClusterError as error:
            log.warning("%s", error)
        time.sleep(2)
    # A node that doesn't answer mustn't keep the chart here for ever; the README says what to do there.
    log.error("programs, or the entry in the chain, may still be on %s", ", ".join(left))
    return 0


if __name__ == "__main__":
    sys.exit(main())
