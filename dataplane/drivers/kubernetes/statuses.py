"""What the cluster knows of replicas, in the form and with the words in which a node reports them.

Read from the API alone, so the same for workers that drive a cluster and for a plane's own controller.
What a tenant can write there (labels, names) may be wrong: it concerns nobody but its own cell.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from dataplane.drivers.interface import PlacedCell
from dataplane.drivers.kubernetes import runs, sentences
from dataplane.drivers.kubernetes.api import Api, Object

LABEL = "cytoplane.dev/replica"
CONTAINER, CHECK = "app", "check"
LINES = 30
#: Until a pod that waits is asked why: most start before.
PATIENCE = timedelta(seconds=3)
_BEEN_WELL = ("healthy", "unhealthy")


def reports(api: Api, cell: PlacedCell, before: dict[str, str]) -> list[dict[str, Any]]:
    """One report for each replica that the cluster knows of. Raises ``DriverError``."""
    if not cell.endpoints:
        return []
    deployments = {
        item["metadata"]["name"]: item for item in api.list("apps/v1", "Deployment", cell.location)
    }
    pods: dict[str, list[Object]] = {}
    for pod in api.list("v1", "Pod", cell.location, labelSelector=LABEL):
        pods.setdefault(pod["metadata"]["labels"][LABEL], []).append(pod)
    found = runs.reports(api, cell, pods, before)
    for endpoint in cell.endpoints:
        name = endpoint["id"]
        if name in deployments:
            one = _Replica(api, cell.location, endpoint, deployments[name], _newest(pods.get(name, [])))
            found.append(one.report(before.get(name, "")))
    return found


def _newest(pods: list[Object]) -> Object | None:
    """The pod that counts: one that is going or has ended only where there is no other."""

    def rank(pod: Object) -> tuple[bool, bool, str]:
        ended = (pod.get("status") or {}).get("phase") in ("Failed", "Succeeded")
        going = bool(pod["metadata"].get("deletionTimestamp"))
        return not ended, not going, pod["metadata"].get("creationTimestamp") or ""

    return max(pods, key=rank, default=None)


class _Replica:
    """A replica as it is seen now."""

    def __init__(
        self, api: Api, namespace: str, endpoint: dict[str, Any], deployment: Object, pod: Object | None
    ) -> None:
        self._api, self._namespace = api, namespace
        self._endpoint, self._deployment, self._pod = endpoint, deployment, pod
        self._status: Object = (pod or {}).get("status") or {}
        self._probe = endpoint["process"]["probe"]
        self._container = _named(self._status.get("containerStatuses"), CONTAINER)

    def report(self, before: str) -> dict[str, Any]:
        seen = self._seen(before)
        phase = seen.pop("phase")
        if before in _BEEN_WELL and phase in ("starting", "failed", "pending"):
            phase = "unhealthy"
        elif before == "failed" and phase == "starting":
            # Another try of what has failed: it isn't better before it is well.
            phase = "failed"
        known: dict[str, Any] = {"id": self._endpoint["id"], "phase": phase}
        known["restarts"] = self._container.get("restartCount", 0)
        started = _moment(((self._container.get("state") or {}).get("running") or {}).get("startedAt"))
        if started:
            known["started_at"] = started.timestamp()
        node = ((self._pod or {}).get("spec") or {}).get("nodeName")
        if node:
            known["node"] = node
        return known | {key: value for key, value in seen.items() if value not in ("", [], None)}

    def _seen(self, before: str) -> dict[str, Any]:
        if self._pod is None:
            return self._without_pod()
        if self._status.get("phase") == "Failed":
            reason = sentences.evicted(self._status.get("reason", ""), self._status.get("message", ""))
            return {"phase": "failed", "reason": reason}
        scheduled = _named(self._status.get("conditions"), "PodScheduled", "type")
        if scheduled.get("status") == "False":
            return {"phase": "pending", "reason": sentences.unschedulable(scheduled.get("message", ""))}
        check = _named(self._status.get("initContainerStatuses"), CHECK)
        if check and not self._container.get("started") and not _ended_well(check):
            return self._waiting(check)
        state = self._container.get("state") or {}
        if state.get("terminated"):
            return self._ended(state["terminated"], previous=False)
        waiting = state.get("waiting") or {}
        last = (self._container.get("lastState") or {}).get("terminated")
        if waiting.get("reason") == "CrashLoopBackOff" and last:
            return self._ended(last, previous=self._container.get("restartCount", 0) > 0)
        if state.get("running"):
            return self._running(before)
        return self._waiting(self._container)

    def _without_pod(self) -> dict[str, Any]:
        conditions = (self._deployment.get("status") or {}).get("conditions")
        refused = _named(conditions, "ReplicaFailure", "type")
        if refused.get("status") == "True":
            return {"phase": "failed", "reason": sentences.refused(refused.get("message", ""))}
        return {"phase": "pending"}

    def _ended(self, terminated: Object, *, previous: bool) -> dict[str, Any]:
        if terminated.get("reason") in ("StartError", "ContainerCannotRun"):
            return {"phase": "failed", "reason": sentences.cant_run(terminated.get("message", ""))}
        reason = "it ran out of memory" if terminated.get("reason") == "OOMKilled" else ""
        return {
            "phase": "failed",
            "exit_code": terminated.get("exitCode"),
            "reason": reason,
            "last_lines": self._lines(previous=previous),
        }

    def _running(self, before: str) -> dict[str, Any]:
        ready = _named(self._status.get("conditions"), "Ready", "type")
        if ready.get("status") == "True":
            available = (self._deployment.get("status") or {}).get("availableReplicas", 0)
            # What checks nothing must at least stay for a moment.
            well = self._probe["type"] != "none" or available or before in _BEEN_WELL
            return {"phase": "healthy" if well else "starting"}
        if ready.get("reason") == "NodeNotReady" or ready.get("status") == "Unknown":
            return {"phase": "unhealthy", "reason": "its node doesn't answer"}
        started = _moment(self._container["state"]["running"].get("startedAt"))
        late = started is not None and _now() - started > timedelta(seconds=self._probe["grace"])
        if not late and before not in _BEEN_WELL:
            return {"phase": "starting"}
        return {
            "phase": "failed",
            "probe": sentences.probe(self._probe, self._event("Unhealthy")),
            "last_lines": [] if before in ("failed", "unhealthy") else self._lines(previous=False),
        }

    def _waiting(self, container: Object) -> dict[str, Any]:
        waiting = (container.get("state") or {}).get("waiting") or {}
        kind, message = waiting.get("reason", ""), waiting.get("message", "")
        if container.get("name") == CHECK:
            return self._unchecked(container)
        if kind in ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"):
            if kind == "ImagePullBackOff":
                message = self._event("Failed", "Failed to pull") or message
            return {"phase": "failed", "reason": sentences.image(message)}
        if kind == "CreateContainerConfigError":
            passing, reason = sentences.configuration(message)
            return {"phase": "starting" if passing else "failed", "reason": reason}
        if kind in ("CreateContainerError", "RunContainerError"):
            return {"phase": "failed", "reason": sentences.cant_run(message)}
        made = _moment(self._pod["metadata"].get("creationTimestamp")) if self._pod else None
        if made is None or _now() - made < PATIENCE:
            return {"phase": "starting"}
        trouble = self._event("FailedCreatePodSandBox") or self._event("FailedMount")
        return {"phase": "starting", "reason": sentences.sandbox(trouble) if trouble else ""}

    def _unchecked(self, check: Object) -> dict[str, Any]:
        """The first container hasn't seen yet that the pod is isolated."""
        state = check.get("state") or {}
        ended = state.get("terminated") or (check.get("lastState") or {}).get("terminated")
        if ended and ended.get("exitCode"):
            return {"phase": "starting", "reason": sentences.unchecked(ended.get("message", ""))}
        kind = (state.get("waiting") or {}).get("reason", "")
        if kind in ("ErrImagePull", "ImagePullBackOff"):
            return {"phase": "starting", "reason": "the platform's own check can't be pulled onto its node"}
        trouble = self._event("FailedCreatePodSandBox") if kind == "PodInitializing" or kind == "" else ""
        return {"phase": "starting", "reason": sentences.sandbox(trouble) if trouble else ""}

    def _lines(self, *, previous: bool) -> list[str]:
        assert self._pod is not None
        name = self._pod["metadata"]["name"]
        found = self._api.log(self._namespace, name, CONTAINER, previous=previous, lines=LINES)
        return found or self._api.log(self._namespace, name, CONTAINER, previous=not previous, lines=LINES)

    def _event(self, reason: str, begins: str = "") -> str:
        """The newest event of a kind about the pod."""
        assert self._pod is not None
        metadata = self._pod["metadata"]
        selector = f"involvedObject.uid={metadata['uid']},reason={reason}"
        events = self._api.list("v1", "Event", self._namespace, limit=50, fieldSelector=selector)
        events = [item for item in events if str(item.get("message", "")).startswith(begins)]
        newest = max(events, key=lambda item: item.get("lastTimestamp") or "", default={})
        return str(newest.get("message", ""))


def _named(items: Any, name: str, key: str = "name") -> Object:
    return next((item for item in items or [] if item.get(key) == name), {})


def _ended_well(container: Object) -> bool:
    terminated = (container.get("state") or {}).get("terminated")
    return terminated is not None and terminated.get("exitCode") == 0


def _now() -> datetime:
    return datetime.now(UTC)


def _moment(text: Any) -> datetime | None:
    try:
        return datetime.fromisoformat(text)
    except (TypeError, ValueError):
        return None
