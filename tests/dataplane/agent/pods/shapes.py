"""What the platform's chart says of a pod's rights: a pod of a cell that says less gets no network."""

from __future__ import annotations

from typing import Any

#: Of each container.
CONFINED: dict[str, Any] = {
    "allowPrivilegeEscalation": False,
    "privileged": False,
    "readOnlyRootFilesystem": True,
    "runAsNonRoot": True,
    "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}
#: Of the pod.
USER: dict[str, Any] = {
    "runAsNonRoot": True,
    "runAsUser": 1000,
    "runAsGroup": 1000,
    "fsGroup": 1000,
    "seccompProfile": {"type": "RuntimeDefault"},
}


def confined(spec: dict[str, Any]) -> dict[str, Any]:
    """A pod's specification with the chart's words where it has none of its own."""
    containers = [{"securityContext": CONFINED, **container} for container in spec["containers"]]
    return {"securityContext": USER, **spec, "containers": containers}
