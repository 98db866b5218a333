"""Tokens for the agents of the cluster's nodes: one for each node whose agent isn't heard of."""

from __future__ import annotations

import base64
import logging
import time
from typing import Any

from dataplane.client import ControlPlane, Refused
from dataplane.drivers.kubernetes.api import Api

log = logging.getLogger("cytoplane.controller")
#: Seconds for which a token lies there; it is good for an hour.
LASTS = 50 * 60
LABEL = "cytoplane.dev/enrolment"
_MADE = "cytoplane.dev/made"


def secret_of(node: str) -> str:
    """Name of the secret with a node's token."""
    return f"enrol-{node}"


def names(api: Api) -> list[str]:
    """The cluster's nodes. Raises ``DriverError``."""
    return sorted(item["metadata"]["name"] for item in api.list("v1", "Node", ""))


def invite(control: ControlPlane, api: Api, namespace: str, nodes: list[str], heard: set[str]) -> list[str]:
    """Lay down tokens for the nodes that aren't ``heard`` of, take others away; sentences about what failed."""
    lying = {
        item["metadata"]["name"]: item
        for item in api.list("v1", "Secret", namespace, labelSelector=f"{LABEL}=node")
    }
    problems = []
    for node in nodes:
        if node in heard or _fresh(lying.get(secret_of(node))):
            continue
        try:
            token = control.post("/agent/node-token", {"name": node})["token"]
        except Refused as error:
            problems.append(f"node {node} gets no token: {error}")
            continue
        api.delete("v1", "Secret", namespace, secret_of(node))
        api.create(_secret(namespace, node, token))
        log.info("a token lies ready for node %s", node)
    wanted = {secret_of(node) for node in nodes if node not in heard}
    for name in lying.keys() - wanted:
        api.delete("v1", "Secret", namespace, name)
    return problems


def _secret(namespace: str, node: str, token: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": secret_of(node),
            "namespace": namespace,
            "labels": {LABEL: "node", "app.kubernetes.io/part-of": "cytoplane"},
            "annotations": {_MADE: f"{time.time():.0f}"},
        },
        "type": "Opaque",
        "data": {"token": base64.b64encode(token.encode()).decode()},
    }


def _fresh(secret: dict[str, Any] | None) -> bool:
    if secret is None:
        return False
    try:
        made = float((secret["metadata"].get("annotations") or {})[_MADE])
    except (KeyError, ValueError):
        return False
    return 0 <= time.time() - made < LASTS
