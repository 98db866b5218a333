"""The pods of this node that hold replicas: kept on disk, taken up after a restart, swept when they are gone."""

from __future__ import annotations

import json
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bpf.attach import NotOurs
from dataplane.agent import network
from dataplane.agent.kernel import Kernel
from dataplane.agent.pods.placements import Placement
from dataplane.client import write_private

log = logging.getLogger("cytoplane.agent")
#: So long lines of a pod that is gone are looked for, seconds.
LAST_LINES = 10.0


@dataclass(frozen=True)
class Pod:
    """A pod that holds a replica. ``netns``: its namespace's mount, and ``inode`` what was mounted there;
    ``container``: the runtime's id of its sandbox; ``app``: the name of the container whose log is read."""

    replica: str
    uid: str
    namespace: str
    name: str
    container: str
    netns: str
    inode: int
    ifname: str
    ifindex: int
    identity: int
    translate: bool
    v4: str
    v6: str
    app: str
    since: float

    def placement(self, node: str, serving: bool = True) -> Placement:
        return Placement(node, self.uid, self.namespace, self.v4, self.v6, self.since, serving)

    @property
    def pair(self) -> tuple[str, str]:
        """Its addresses; twice the same if it has one."""
        return self.v4 or self.v6, self.v6 or self.v4

    def there(self) -> bool:
        """Whether its network still is: its namespace and the node's end of its interface."""
        try:
            socket.if_indextoname(self.ifindex)
            return Path(self.netns).stat().st_ino == self.inode
        except OSError:
            return False


class Local:
    """Calls from any thread. ``changed`` is called after a pod has come or gone."""

    def __init__(self, file: Path, changed: Callable[[], None]) -> None:
        self._file, self._changed = file, changed
        self._lock = threading.RLock()
        self._pods: dict[str, Pod] = {}
        #: Replica → a pod that is gone, and since when on the monotonic clock: its last lines may not be read.
        self._gone: dict[str, tuple[Pod, float]] = {}
        #: Pods that were ready once, and those that get nothing new, by their uids.
        self._ready: set[str] = set()
        self._out: set[str] = set()
        #: Replicas that have no network because desired state doesn't have them.
        self._closed: set[str] = set()
        #: Replica → since when desired state doesn't have it, on the monotonic clock.
        self._unwanted: dict[str, float] = {}

    def pods(self) -> dict[str, Pod]:
        with self._lock:
            return dict(self._pods)

    def writing(self) -> dict[str, Pod]:
        """Pods whose lines there may be more of: those that are, and those that were a moment ago."""
        now = time.monotonic()
        with self._lock:
            self._gone = {r: (pod, at) for r, (pod, at) in self._gone.items() if now - at < LAST_LINES}
            return {r: pod for r, (pod, _) in self._gone.items()} | self._pods

    def placements(self, node: str) -> dict[str, Placement]:
        """What the node says of them."""
        with self._lock:
            return {
                r: pod.placement(node, pod.uid not in self._out)
                for r, pod in self._pods.items()
                if r not in self._closed
            }

    def observe(self, seen: Iterable[Mapping[str, Any]]) -> None:
        """Take note of how pods are: who ends, or was ready and isn't any more, gets nothing new."""
        with self._lock:
            before, own = self._out, {pod.uid for pod in self._pods.values()}
            ready, ending = set(), set()
            for pod in seen:
                uid = pod["metadata"]["uid"]
                conditions = pod.get("status", {}).get("conditions") or []
                if any(c["type"] == "Ready" and c["status"] == "True" for c in conditions):
                    ready.add(uid)
                if pod["metadata"].get("deletionTimestamp"):
                    ending.add(uid)
            self._ready = (self._ready | ready) & own
            self._out = (ending | (self._ready - ready)) & own
            different = self._out != before
        if different:
            self._changed()

    def get(self, replica: str) -> Pod | None:
        with self._lock:
            return self._pods.get(replica)

    def restore(self, kernel: Kernel) -> None:
        """Take up what an agent before this one kept; what is gone since is forgotten, and what it hasn't kept
        is closed: another one's of this node, from before its folder was emptied."""
        try:
            kept = [Pod(**entry) for entry in json.loads(self._file.read_text())]
        except FileNotFoundError:
            kept = []
        except (OSError, ValueError, TypeError) as error:
            # What runs goes on by the kernel's tables; new pods of these replicas are refused by them.
            log.error("the kept pods can't be read: %s", error)
            return
        with self._lock:
            self._pods = {pod.replica: pod for pod in kept}
        if strangers := kernel.forget_pods({pod.ifindex for pod in kept}):
            log.warning("%s interfaces of pods that this agent doesn't know are closed", len(strangers))
        self.introduce(kernel)
        self.sweep(kernel)

    def introduce(self, kernel: Kernel) -> None:
        """Have all of them in the kernel's tables, as after a restart or an upgrade."""
        pods = self.pods().values()
        for pod in pods:
            if not pod.there():
                kernel.forget_interface(pod.ifindex)
        for pod in pods:
            if pod.there() and pod.replica not in self._closed:
                self._introduce(kernel, pod)

    @staticmethod
    def _introduce(kernel: Kernel, pod: Pod) -> None:
        try:
            found = network.find_foreign(pod.replica, Path(pod.netns), pod.ifname)
            kernel.take_pod(found, network.Address(pod.v4, pod.v6, pod.identity), pod.translate)
        except (network.NetworkError, NotOurs, OSError) as error:
            log.error("%s can't be taken up, so it stays as it is: %s", pod.replica, error)

    def add(self, kernel: Kernel, pod: Pod, found: network.Foreign) -> None:
        """Written down first: whoever dies in between finds it. Raises what the kernel side does."""
        with self._lock:
            before = self._pods.get(pod.replica)
            self._closed.discard(pod.replica)
            if before is not None:
                kernel.release_pod(before.replica)
                kernel.backend_left(before.replica, before.identity, before.pair)
            self._pods[pod.replica] = pod
            self._save()
            # An index is used again: what was behind it before is nobody's of this pod.
            kernel.forget_interface(pod.ifindex)
            try:
                kernel.take_pod(found, network.Address(pod.v4, pod.v6, pod.identity), pod.translate)
            except BaseException:
                del self._pods[pod.replica]
                self._save()
                kernel.release_pod(pod.replica)
                raise
        self._changed()

    def remove(self, kernel: Kernel, replica: str, container: str = "") -> bool:
        """Close and forget a replica's pod; with ``container`` only if it is that one's."""
        with self._lock:
            pod = self._pods.get(replica)
            if pod is None or (container and pod.container != container):
                return False
            kernel.release_pod(replica)
            kernel.backend_left(replica, pod.identity, pod.pair)
            del self._pods[replica]
            self._unwanted.pop(replica, None)
            self._closed.discard(replica)
            self._gone[replica] = (pod, time.monotonic())
            self._save()
        self._changed()
        return True

    def of_container(self, container: str) -> str:
        """The replica whose sandbox this is, or ""."""
        with self._lock:
            return next((pod.replica for pod in self._pods.values() if pod.container == container), "")

    def sweep(self, kernel: Kernel) -> list[str]:
        """Forget what is gone without anybody having said so; the replicas."""
        gone = [replica for replica, pod in self.pods().items() if not pod.there()]
        for replica in gone:
            self.remove(kernel, replica)
        return gone

    def settle(self, kernel: Kernel, wanted: Mapping[str, object], seconds: float) -> None:
        """Close what desired state hasn't had for so long, and open it again where it has it after all."""
        now = time.monotonic()
        with self._lock:
            self._unwanted = {r: self._unwanted.get(r, now) for r in self._pods if r not in wanted}
            over = {replica for replica, since in self._unwanted.items() if now - since >= seconds}
            closing, opening = over - self._closed, self._closed - self._unwanted.keys()
            for replica in closing:
                log.warning("%s still runs and desired state doesn't have it as it is: it is closed", replica)
                pod = self._pods[replica]
                kernel.release_pod(replica)
                kernel.backend_left(replica, pod.identity, pod.pair)
            self._closed = (self._closed | closing) - opening
            for replica in opening:
                self._introduce(kernel, self._pods[replica])
        if closing or opening:
            self._changed()

    def _save(self) -> None:
        document = [asdict(pod) for _, pod in sorted(self._pods.items())]
        write_private(self._file, json.dumps(document).encode())
