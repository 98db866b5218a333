"""How runs are, read from the cluster's API: what their one pod says, and what it means that there is none."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from dataplane.drivers.interface import PlacedCell
from dataplane.drivers.kubernetes import once, sentences
from dataplane.drivers.kubernetes.api import Api, Object

CONTAINER, CHECK, LINES = "app", "check", 30
_NO_IMAGE = ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull")
_CANT_RUN = ("CreateContainerError", "RunContainerError")
#: What a run ends with whose program can't be started, as shells have it.
_NOT_FOUND = 127
#: Phases after which nothing new comes.
_OVER = ("ended", "lost")


def reports(
    api: Api, cell: PlacedCell, pods: Mapping[str, list[Object]], before: Mapping[str, str]
) -> list[dict[str, Any]]:
    """One report for each run of the cell of which there is something to say."""
    wanted = once.ids(cell)
    if not wanted:
        return []
    without = {replica for replica in wanted if _own(pods, replica) is None}
    gone = once.made(api, cell) & without if without else set()
    found = []
    for replica in sorted(wanted):
        if before.get(replica) in _OVER:
            continue
        pod = _own(pods, replica)
        if pod is not None:
            found.append({"id": replica, "restarts": 0, **_seen(api, cell.location, pod)})
        elif replica in gone and replica not in once.there(api, cell):
            reason = "its pod was taken away in the cluster, or its node was lost"
            found.append({"id": replica, "restarts": 0, "phase": "lost", "reason": reason})
    return found


def _own(pods: Mapping[str, list[Object]], replica: str) -> Object | None:
    """The run's pod: the platform's has its name, and others may claim its label."""
    return next((pod for pod in pods.get(replica, ()) if pod["metadata"]["name"] == replica), None)


def _seen(api: Api, namespace: str, pod: Object) -> dict[str, Any]:
    status = pod.get("status") or {}
    state = _state(status.get("containerStatuses"), CONTAINER)
    if ended := state.get("terminated"):
        return _ended(api, namespace, pod, ended)
    if status.get("phase") in ("Failed", "Succeeded"):
        return _without_process(status)
    if running := state.get("running"):
        started = _moment(running.get("startedAt"))
        return {"phase": "healthy"} | ({"started_at": started} if started else {})
    for condition in status.get("conditions") or ():
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            return {"phase": "pending", "reason": sentences.unschedulable(condition.get("message", ""))}
    waiting = state.get("waiting") or {}
    kind, message = waiting.get("reason", ""), waiting.get("message", "")
    if kind in _NO_IMAGE:
        return {"phase": "failed", "reason": sentences.image(message)}
    if kind in _CANT_RUN:
        return {"phase": "failed", "reason": sentences.cant_run(message)}
    return {"phase": "starting"}


def _ended(api: Api, namespace: str, pod: Object, ended: Object) -> dict[str, Any]:
    if ended.get("reason") in ("StartError", "ContainerCannotRun"):
        reason = sentences.cant_run(ended.get("message", ""))
        return {"phase": "ended", "exit_code": _NOT_FOUND, "reason": reason}
    found: dict[str, Any] = {"phase": "ended", "exit_code": ended.get("exitCode")}
    if (pod.get("status") or {}).get("reason") == "DeadlineExceeded":
        found["timed_out"] = True
    if ended.get("reason") == "OOMKilled":
        found["reason"] = "it ran out of memory"
    if started := _moment(ended.get("startedAt")):
        found["started_at"] = started
    if ended.get("reason") == "ContainerStatusUnknown":
        return {"phase": "lost", "reason": "its node can't say how it ended"}
    name = pod["metadata"]["name"]
    if lines := api.log(namespace, name, CONTAINER, previous=False, lines=LINES):
        found["last_lines"] = lines
    return found


def _without_process(status: Object) -> dict[str, Any]:
    """The pod has ended, and its process was never there, or nothing is known of it."""
    check = _state(status.get("initContainerStatuses"), CHECK).get("terminated") or {}
    if check.get("exitCode"):
        return {"phase": "ended", "reason": sentences.unchecked(check.get("message", ""))}
    if status.get("reason") == "DeadlineExceeded":
        return {"phase": "ended", "timed_out": True}
    reason = sentences.evicted(status.get("reason", ""), status.get("message", ""))
    return {"phase": "lost", "reason": reason}


def _state(statuses: Any, name: str) -> Object:
    found: Object = next((item for item in statuses or () if item.get("name") == name), {})
    return found.get("state") or {}


def _moment(text: Any) -> float | None:
    try:
        return datetime.fromisoformat(text).timestamp()
    except (TypeError, ValueError):
        return None
