"""Whether a pod is what it says: the cell comes from its namespace, the namespace from desired state.

A label is only a question. Whoever may make pods in a cell's namespace may write any; it counts where
desired state has this replica in this namespace with these images, and the pod asks for nothing by which
it could reach around its network.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from dataplane.agent.pods.placements import REPLICA
from infra.config import Config

LABEL = "cytoplane.dev/replica"
_REFERENCE = re.compile(r"t[0-9]+/p[0-9]+@sha256:[0-9a-f]{64}", re.ASCII)
_HOST = ("hostNetwork", "hostPID", "hostIPC")
#: Kinds of volumes that hold nothing of the node.
_VOLUMES = frozenset(
    {"configMap", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}
)


def replica_of(pod: Mapping[str, Any]) -> str:
    """The replica that a pod says it is; "" if it says nothing that could be one."""
    label = (pod["metadata"].get("labels") or {}).get(LABEL, "")
    return label if REPLICA.fullmatch(label) else ""


def images_of(config: Config, endpoint: Mapping[str, Any]) -> set[str]:
    """What the containers of a replica may run: its image, as pods name it, and the platform's check."""
    named = str(endpoint["process"]["image"])
    found = {named}
    if _REFERENCE.fullmatch(named):
        found = {f"127.0.0.1:{config.registry_port}/{named}"}
    if config.check_image:
        found.add(config.check_image)
    return found


def refusal(pod: Mapping[str, Any], endpoint: Mapping[str, Any], images: Iterable[str]) -> str:
    """Why a pod isn't the replica of this entry of desired state, as a sentence; "" if it may be."""
    metadata, spec = pod["metadata"], pod["spec"]
    replica = endpoint["id"]
    if (endpoint.get("pod") or {}).get("namespace") != metadata["namespace"]:
        return f"{replica} isn't a replica of this namespace's cell"
    if metadata.get("deletionTimestamp"):
        return "the pod is being deleted"
    for field in _HOST:
        if spec.get(field):
            return f"a cell's pod can't have {field}"
    allowed = set(images)
    for container in containers(spec):
        name = container.get("name", "?")
        if container.get("image") not in allowed:
            return f"desired state doesn't name the image of container {name} for {replica}"
        if why := _container(container):
            return f"container {name} {why}"
    for volume in spec.get("volumes") or []:
        kinds = {key for key, value in volume.items() if key != "name" and value is not None}
        if not kinds <= _VOLUMES:
            return (
                f"a cell's pod can't have the volume {volume.get('name', '?')} ({', '.join(sorted(kinds))})"
            )
    return ""


def containers(spec: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """All that runs in the pod."""
    kinds = ("initContainers", "containers", "ephemeralContainers")
    return [container for kind in kinds for container in spec.get(kind) or []]


def _container(container: Mapping[str, Any]) -> str:
    security = container.get("securityContext") or {}
    if security.get("privileged"):
        return "is privileged"
    if (security.get("capabilities") or {}).get("add"):
        return "adds capabilities"
    if security.get("procMount") not in (None, "Default"):
        return "has an unmasked /proc"
    if any(port.get("hostPort") for port in container.get("ports") or []):
        return "takes a port of the node"
    if container.get("volumeDevices"):
        return "has a block device"
    return ""
