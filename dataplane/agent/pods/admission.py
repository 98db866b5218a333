"""The agent's answer to the CNI plugin: a pod of a cell has a network once the kernel knows whose it is."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from bpf.attach import NotOurs
from dataplane.agent import network
from dataplane.agent.kernel import Kernel
from dataplane.agent.pods import server, verify
from dataplane.agent.pods.cluster import Cluster, ClusterError
from dataplane.agent.pods.local import Local, Pod
from dataplane.agent.pods.others import Others
from dataplane.cni.names import is_cell
from infra.config import Config

log = logging.getLogger("cytoplane.agent")
#: The plugin waits for twenty seconds. A pod may come before the desired state that has it or before the
#: replica's earlier pod has ended, and may have to wait until the tables are written.
STATE_SECONDS, FORCE_SECONDS = 8.0, 8.0
#: How often is looked whether the earlier pod has ended.
LOOK_SECONDS = 0.5
#: Pods of one namespace, and of all, that wait for desired state at a time: more would take the time of others'
#: pods, which needn't wait.
WAITING, WAITING_OF_ALL = 4, server.WORKERS - 8


class Admission:
    """``publish`` says to other nodes where pods are, and raises ``ClusterError``."""

    def __init__(
        self, config: Config, cluster: Cluster, local: Local, others: Others, publish: Callable[[], None]
    ) -> None:
        self._config, self._cluster, self._local, self._others = config, cluster, local, others
        self._publish = publish
        self.kernel: Kernel | None = None
        self._change = threading.Condition()
        #: Replica → its entry of desired state, of what is in force.
        self._wanted: dict[str, dict[str, Any]] = {}
        #: Changes of placements so far, and how many of them are in force; -1: nothing is.
        self.moves, self._reached = 0, -1
        #: Namespace → its pods that wait for desired state.
        self._waiting: Counter[str] = Counter()
        #: Uids of pods that were found to be others by now.
        self._altered: set[str] = set()
        #: One pod of a replica at a time.
        self._busy: set[str] = set()

    # What the engine tells.
    def moved(self) -> None:
        with self._change:
            self.moves += 1

    def in_force(self, document: Mapping[str, Any], moves: int) -> None:
        """The tables hold this desired state with that many changes of placements."""
        with self._change:
            self._wanted = {endpoint["id"]: endpoint for endpoint in document["endpoints"]}
            self._reached = max(self._reached, moves)
            self._change.notify_all()

    def wanted(self) -> dict[str, dict[str, Any]]:
        with self._change:
            return dict(self._wanted) if self._reached >= 0 else {r: {} for r in self._local.pods()}

    def altered(self, seen: Iterable[Mapping[str, Any]]) -> set[str]:
        """Of this node's pods, by their uids, those that aren't any more what was let in, or that nobody has
        ever heard of. ``seen``: all replicas that the cluster knows of on this node."""
        known = {pod["metadata"]["uid"]: pod for pod in seen}
        found = set()
        for replica, endpoint in self.wanted().items():
            own = self._local.get(replica)
            if own is None or not endpoint:
                continue
            pod = known.get(own.uid)
            why = (
                verify.altered(pod, endpoint, verify.images_of(self._config, endpoint))
                if pod is not None
                else "the cluster doesn't know it as a replica"
            )
            if why:
                found.add(own.uid)
                if own.uid not in self._altered:
                    log.warning("pod %s isn't any more what was let in as %s: %s", own.name, replica, why)
        self._altered = found
        return found

    # What the plugin asks.
    def answer(self, question: dict[str, Any]) -> str | None:
        """None to agree, or why not, as a sentence."""
        command, container = str(question.get("command", "")), str(question.get("container", ""))
        assert self.kernel is not None
        if command == "DEL":
            replica = self._local.of_container(container)
            if replica:
                self._local.remove(self.kernel, replica, container)
            return None
        if command == "CHECK":
            pod = self._local.get(self._local.of_container(container))
            return None if pod is not None and pod.there() else "the node doesn't know this pod"
        if command != "ADD":
            return f"{command[:40]!r} isn't known"
        try:
            return self._add(question, container)
        except ClusterError as error:
            return str(error)

    def _add(self, question: dict[str, Any], container: str) -> str | None:
        said = _arguments(str(question.get("args", "")))
        namespace, name = said.get("K8S_POD_NAMESPACE", ""), said.get("K8S_POD_NAME", "")
        netns, ifname = _mount(str(question.get("netns", ""))), str(question.get("ifname", ""))
        if not is_cell(namespace) or not name or not netns.startswith("/") or not ifname or not container:
            return "the question isn't one about a cell's pod"
        if self.kernel is not None and self.kernel.distrust:
            return f"the node can't isolate it yet: {self.kernel.distrust}"
        pod = self._cluster.pod(namespace, name)
        if pod is None:
            return f"the cluster knows no pod {name}"
        uid = pod["metadata"]["uid"]
        if said.get("K8S_POD_UID", uid) != uid:
            return f"another pod has the name {name} by now"
        if pod["spec"].get("nodeName") != self._config.node:
            return "the pod belongs to another node"
        replica = verify.replica_of(pod)
        if not replica:
            return f"the pod says no replica ({verify.LABEL}), and only replicas run in a cell's namespace"
        with self._change:
            if replica in self._busy:
                return f"another pod is just becoming {replica}"
            self._busy.add(replica)
        try:
            return self._become(pod, replica, container, netns, ifname)
        finally:
            with self._change:
                self._busy.discard(replica)

    def _become(
        self, pod: dict[str, Any], replica: str, container: str, netns: str, ifname: str
    ) -> str | None:
        namespace, end = pod["metadata"]["namespace"], time.monotonic() + STATE_SECONDS
        with self._patience(namespace, end) as patience:
            endpoint = self._await_state(replica, patience)
            if endpoint is None:
                return f"desired state has no {replica} here"
            if why := verify.refusal(pod, endpoint, verify.images_of(self._config, endpoint)):
                return why
            if why := self._await_free(replica, namespace, pod["metadata"]["uid"], patience):
                return why
        assert self.kernel is not None
        try:
            found = network.find_foreign(replica, Path(netns), ifname)
            v4, v6 = _own(found.addresses)
            made = Pod(
                replica=replica,
                uid=pod["metadata"]["uid"],
                namespace=pod["metadata"]["namespace"],
                name=pod["metadata"]["name"],
                container=container,
                netns=netns,
                inode=Path(netns).stat().st_ino,
                ifname=ifname,
                ifindex=found.ifindex,
                identity=endpoint["identity"],
                translate=endpoint.get("translate", True),
                v4=v4,
                v6=v6,
                app=pod["spec"]["containers"][0]["name"],
                since=time.time(),
            )
            self._local.add(self.kernel, made, found)
        except (network.NetworkError, NotOurs, OSError) as error:
            return f"its network can't be taken over: {error}"
        if why := self._settle():
            self._local.remove(self.kernel, replica, container)
            return why
        log.info("%s is pod %s in %s with %s", replica, made.name, made.namespace, found.addresses)
        return None

    @contextlib.contextmanager
    def _patience(self, namespace: str, end: float) -> Iterator[float]:
        """Until when a pod may wait, on the monotonic clock: not at all with too many of its namespace's."""
        with self._change:
            waits = self._waiting[namespace] < WAITING and self._waiting.total() < WAITING_OF_ALL
            if waits:
                self._waiting[namespace] += 1
        try:
            yield end if waits else 0.0
        finally:
            if waits:
                with self._change:
                    self._waiting[namespace] -= 1
                    self._waiting += Counter()  # without those at zero

    def _await_state(self, replica: str, end: float) -> dict[str, Any] | None:
        with self._change:
            while replica not in self._wanted and (left := end - time.monotonic()) > 0:
                self._change.wait(left)
            return self._wanted.get(replica)

    def _await_free(self, replica: str, namespace: str, uid: str, end: float) -> str:
        """As ``_held``, once its earlier pod has had the time to end."""
        while why := self._held(replica, namespace, uid):
            if time.monotonic() + LOOK_SECONDS > end:
                break
            time.sleep(LOOK_SECONDS)
        return why

    def _held(self, replica: str, namespace: str, uid: str) -> str:
        """Why the replica isn't free, as a sentence: it is one pod. On this node one holds it as long as its
        network is there; on another until it has ended, or is to end and its node isn't heard of any more.
        A pod outside of the replica's namespace never does, whatever a node says of it."""
        own = self._local.get(replica)
        if own is not None and own.uid != uid and own.there():
            return f"{replica} is pod {own.name} still"
        for said in self._others.said():
            other = said.pods.get(replica)
            if other is None or other.uid == uid or other.namespace != namespace:
                continue
            if self._lives(namespace, replica, other.uid, said.node):
                return f"{replica} is a pod on {said.node} still"
        return ""

    def _lives(self, namespace: str, replica: str, uid: str, node: str) -> bool:
        for pod in self._cluster.pods_of(namespace, replica):
            if pod["metadata"]["uid"] == uid:
                if pod.get("status", {}).get("phase") in ("Succeeded", "Failed"):
                    return False
                # What is to end runs until its node has ended it. Of a node that is gone nobody will hear
                # that: the cluster has waited for it before it made another pod.
                return not pod["metadata"].get("deletionTimestamp") or self._cluster.ready(node)
        return False

    def _settle(self) -> str:
        """Wait until tables and names hold the pod, then let other nodes know; why that isn't so, or ""."""
        end = time.monotonic() + FORCE_SECONDS
        with self._change:
            moves = self.moves
            while self._reached < moves and (left := end - time.monotonic()) > 0:
                self._change.wait(left)
            if self._reached < moves:
                return "the node's tables aren't written yet"
        try:
            self._publish()
        except ClusterError as error:
            return str(error)
        return ""


def _mount(netns: str) -> str:
    """The runtime's old name for /run is a link of the node's, which the agent's own root may lack."""
    return netns.removeprefix("/var") if netns.startswith("/var/run/") else netns


def _arguments(text: str) -> dict[str, str]:
    """CNI_ARGS apart. A name that is there twice is none: two readers could take it differently."""
    found: dict[str, str] = {}
    twice = set()
    for part in text.split(";"):
        name, _, value = part.partition("=")
        if name in found:
            twice.add(name)
        found[name] = value
    return {name: value for name, value in found.items() if name not in twice}


def _own(found: tuple[str, ...]) -> tuple[str, str]:
    """The pod's addresses, one of each family. Raises ``NetworkError``."""
    v4 = [text for text in found if ":" not in text]
    v6 = [text for text in found if ":" in text]
    if len(v4) > 1 or len(v6) > 1 or not (v4 or v6):
        raise network.NetworkError(
            f"the pod has {len(v4)} IPv4 and {len(v6)} IPv6 addresses, not one of a family"
        )
    return "".join(v4), "".join(v6)
