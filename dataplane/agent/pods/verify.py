"""Whether a pod is what it says: the cell comes from its namespace, the namespace from desired state.

A label is only a question. Whoever may make pods in a cell's namespace may write any; it counts where
desired state has this replica in this namespace with these images, and the pod asks for no more than Pod
Security's `restricted` allows, also on clusters that have no such admission: see ``confined``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from dataplane.agent.pods import confined
from dataplane.agent.pods.placements import REPLICA
from infra.config import Config

LABEL = "cytoplane.dev/replica"
#: Where a node's proxy is asked: by which port doesn't say what an image is.
_PROXY = re.compile(r"\A127\.0\.0\.1:[0-9]+/", re.ASCII)
_REFERENCE = re.compile(r"t[0-9]+/p[0-9]+@sha256:[0-9a-f]{64}", re.ASCII)


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
    allowed = set(images)
    for container in containers(spec):
        name = container.get("name", "?")
        if container.get("image") not in allowed:
            return f"desired state doesn't name the image of container {name} for {replica}"
    return confined.refusal(metadata, spec, containers(spec))


def altered(pod: Mapping[str, Any], endpoint: Mapping[str, Any], images: Iterable[str]) -> str:
    """Why a pod that was let in isn't any more what it was then, as a sentence; "" while it is, or is ending.

    Of a pod that runs, images can be changed, containers added and labels rewritten, and its network is made
    but once. What was started first has ended.
    """
    if pod["metadata"].get("deletionTimestamp"):
        return ""
    if replica_of(pod) != endpoint["id"]:
        return f"the pod says no more that it is {endpoint['id']}"
    lasting = [each for each in pod["spec"].get("initContainers") or [] if each.get("restartPolicy")]
    running = {**pod["spec"], "initContainers": lasting}
    known = {_PROXY.sub("", image) for image in images}
    named = {str(each.get("image")) for each in containers(running)}
    same = {image for image in named if _PROXY.sub("", image) in known}
    return refusal({**pod, "spec": running}, endpoint, same)


def containers(spec: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """All that runs in the pod."""
    kinds = ("initContainers", "containers", "ephemeralContainers")
    return [container for kind in kinds for container in spec.get(kind) or []]
