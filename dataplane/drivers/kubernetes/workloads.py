"""The chart's values of what runs, from the entries of desired state."""

from __future__ import annotations

import math
import re
from typing import Any

from dataplane.drivers.kubernetes.site import Site

#: Whom processes run as, whatever their image says: its root is read-only, so nothing else depends on it.
USER = 1000
#: Processor time that is kept free for a replica, of what it may use at most: most replicas wait most of
#: the time, as on a machine.
RESERVED = 0.1
_LEAST_CPU = 10
#: Seconds beyond a run's time until its node ends it by itself: images are pulled in it.
_MARGIN = 120
_ID = re.compile(r"r[1-9][0-9]{0,17}")


def secret_of(replica: str) -> str:
    """Name of the secret that holds a replica's variables. Raises ``ValueError`` for what is no replica."""
    if not _ID.fullmatch(replica):
        raise ValueError(f"{replica[:40]!r} isn't a replica")
    return f"env-{replica}"


def once(endpoint: dict[str, Any]) -> bool:
    """Whether it is a run's: started at most once."""
    return endpoint["process"].get("restart") == "never"


def variables(endpoint: dict[str, Any]) -> dict[str, str]:
    """What its secret holds: the process's variables, and words of a command that may be secret."""
    process = endpoint["process"]
    words = process["command"] if process.get("sealed") else ()
    return process["environment"] | {_word(number): word for number, word in enumerate(words)}


def _word(number: int) -> str:
    return f"CYTOPLANE_ARGUMENT_{number}"


def workload(endpoint: dict[str, Any], site: Site) -> dict[str, Any]:
    """One entry of the chart's ``workloads``."""
    process, labels = endpoint["process"], endpoint["labels"]
    cpu = max(1, math.ceil(process["limits"]["cpu"] * 1000))
    memory = max(1, math.ceil(process["limits"]["memory"] / 2**20))
    image = process["image"]
    found: dict[str, Any] = {
        "name": endpoint["id"],
        "component": labels["component"],
        "release": labels["release"],
        "image": f"{site.registry}/{image}" if site.registry else image,
        "environment": secret_of(endpoint["id"]),
        "limits": {"cpu": cpu, "memory": memory},
        "requests": {"cpu": min(cpu, max(_LEAST_CPU, math.ceil(cpu * RESERVED))), "memory": memory},
        "grace": math.ceil(process["stop_grace"]),
        "probe": _probe(process["probe"]),
        "user": USER,
        "readOnly": True,
    }
    if once(endpoint):
        found["once"] = {"deadline": int(process["timeout"]) + _MARGIN}
    if process.get("sealed"):
        # Neither Helm's records nor the pod's object show them: the node fills them in from the secret.
        found["command"] = [f"$({_word(number)})" for number in range(len(process["command"]))]
    elif process["command"]:
        # Kubernetes would read `$(NAME)` as a variable of its own, and `$$` as an escape.
        found["command"] = [part.replace("$", "$$") for part in process["command"]]
    return found


def _probe(probe: dict[str, Any]) -> dict[str, Any]:
    """Whole seconds are the least that kubelet knows."""
    if probe["type"] == "none":
        return {"type": "none"}
    return {
        "type": probe["type"],
        "port": probe["port"],
        "path": probe["path"],
        "interval": max(1, round(probe["interval"])),
        "timeout": max(1, math.ceil(probe["timeout"])),
    }
