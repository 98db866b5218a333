"""A node of a Kubernetes cluster: Kubernetes owns processes, its CNI gives addresses, the agent attests both."""

from __future__ import annotations

import ipaddress
import json
import logging
import os
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from bpf.attach import NotOurs
from dataplane.agent import groups, network
from dataplane.agent.commands import CantEnter, Command, Process, bundles, entering
from dataplane.agent.following import Rules
from dataplane.agent.kernel import Kernel
from dataplane.agent.load import Measured
from dataplane.agent.logs import Tail
from dataplane.agent.pods import adapt
from dataplane.agent.pods.admission import Admission
from dataplane.agent.pods.cluster import Cluster, ClusterError, internal_addresses
from dataplane.agent.pods.leaving import Leaving
from dataplane.agent.pods.local import Local
from dataplane.agent.pods.logs import PodTail, folder
from dataplane.agent.pods.others import Others
from dataplane.agent.pods.placements import Said, believed
from dataplane.agent.pods.server import Server
from dataplane.client import write_private
from dataplane.gateway import between
from dataplane.registry import grants
from infra.config import Config

log = logging.getLogger("cytoplane.agent")
SWEEP_SECONDS = 1.0
#: How often the cluster is asked which of this node's pods end or aren't ready.
LOOK_SECONDS = 2.0
#: How often what the cluster knows of this node is asked for again.
NODE_SECONDS = 60.0
#: So long a pod keeps its network that desired state doesn't have any more, or not as what it is by now: it is
#: about to be deleted.
UNWANTED_SECONDS = 60.0


class Kubernetes:
    """``again`` has the last desired state applied again: the addresses in it are others now."""

    def __init__(self, config: Config, again: Callable[[], None]) -> None:
        self.config = config
        self._again = again
        self._kernel: Kernel | None = None
        self.cluster = Cluster(config)
        self.local = Local(config.agent_dir / "pods.json", self._moved)
        self.others = Others(self.cluster, config.node, config.agent_dir / "placements.json", self._moved)
        self._lock = threading.RLock()
        #: What was adapted last, at which count of moves, and the result.
        self._adapted: tuple[Any, int, dict[str, Any]] | None = None
        #: The same document, read: most of what is adapted again has only moved.
        self._read: tuple[Any, dict[str, Any]] = (None, {})
        self._probed: dict[str, list[adapt.Entry]] = {}
        #: Replica → figures that are asked for, of all nodes' replicas; pod's uid → its control group.
        self._measured: dict[str, frozenset[str]] = {}
        self._groups: dict[str, Path] = {}
        self._addresses: tuple[str, ...] = ()
        self._api: tuple[str, ...] = ()
        #: By which the cluster tells this node from an earlier one of its name; "": not known.
        self._uid = ""
        self._node_file = config.agent_dir / "node.json"
        #: Addresses between which nothing is rewritten; None: not known.
        self._platform: set[str] | None = None
        #: Replicas on other nodes: identity and addresses.
        self._away: dict[str, tuple[int, str, str]] = {}
        self._publishing = threading.Lock()
        self._published: dict[str, Any] | None = None
        self._node_problem, self._publish_problem = "this node's addresses aren't known yet", ""
        self.admission = Admission(config, self.cluster, self.local, self.others, self.publish)
        self._server = Server(config.run / "cni.sock", self.admission.answer)
        self._leaving = Leaving(config, self.cluster, os.environ.get("POD_NAME", ""))

    @property
    def kernel(self) -> Kernel:
        assert self._kernel is not None
        return self._kernel

    # Beginning.
    def prepare(self) -> None:
        """Nothing waits for files here; a node that the plane has left stays as it is."""
        try:
            self._leaving.resume()
        except ClusterError as error:
            log.warning("whether the plane leaves this node isn't known: %s", error)

    def begin(self, kernel: Kernel) -> None:
        """Pods that were are taken up before anybody can ask for a new one."""
        self._kernel = kernel
        self.admission.kernel = kernel
        self.local.restore(kernel)
        self._restore_node()
        self._look_at_node()
        self._server.start()
        self.others.start()
        threading.Thread(target=self._sweep_loop, name="pods", daemon=True).start()

    def _restore_node(self) -> None:
        try:
            kept = json.loads(self._node_file.read_text())
            self._addresses, self._api = tuple(kept["addresses"]), tuple(kept["api"])
        except (OSError, ValueError, LookupError, TypeError):
            return

    def _look_at_node(self) -> None:
        """What the cluster knows of this node and itself; what was known before stays if it doesn't answer."""
        try:
            node = self.cluster.node(self.config.node)
            if node is None:
                raise ClusterError(f"the cluster knows no node {self.config.node}")
            found = tuple(str(ipaddress.ip_address(a)) for a in internal_addresses(node))
            if not found:
                raise ClusterError(f"the cluster knows no address of node {self.config.node}")
            api = tuple(self.cluster.own_addresses())
            self._uid = str(node["metadata"]["uid"])
            if (found, api) != (self._addresses, self._api):
                self._addresses, self._api = found, api
                text = json.dumps({"addresses": found, "api": api})
                write_private(self._node_file, text.encode())
                self._moved()
        except (ClusterError, ValueError) as error:
            if not self._addresses:
                self._node_problem = f"this node's addresses aren't known: {error}"
                return
        try:
            self.kernel.underlays(self.config.underlays or interfaces_of(self._addresses))
            self._node_problem = ""
        except (OSError, NotOurs, subprocess.CalledProcessError) as error:
            self._node_problem = f"the interfaces to other nodes can't be guarded: {error}"

    # Placements.
    def _moved(self) -> None:
        self.admission.moved()
        self._again()

    def said(self) -> Said:
        """What this node says."""
        return Said(self.config.node, self._addresses, self.local.placements(self.config.node))

    def publish(self) -> None:
        """Say it to the other nodes, unless that was said last. Raises ``ClusterError``."""
        with self._publishing:
            document = self.said().document()
            if document != self._published:
                self.cluster.publish(self.config.node, self._uid, document)
                self._published = document

    def _floor(self, said: list[Said]) -> list[tuple[str, str]]:
        """What no pod reaches by its address: others' pods, services, nodes, the API server."""
        found = [(str(each), "FLOOR") for each in self.config.cluster_ranges]
        nodes = {address for each in said for address in each.addresses}
        for address in sorted(nodes):
            found.append((_single(address), "NODE"))
        found += [(_single(address), "FLOOR") for address in sorted(set(self._api) - nodes)]
        return found

    def adapted(self, document: Mapping[str, Any]) -> Mapping[str, Any]:
        # Read before what it counts is read: what moves in between is adapted to again.
        moves = self.admission.moves
        with self._lock:
            known, (of, whole) = self._adapted, self._read
        if known is not None and known[0] is document and known[1] == moves:
            return known[2]
        if of is not document:
            whole = adapt.read(document)
        said = [self.said(), *self.others.said()]
        own = (self.config.workloads4, self.config.services4, self.config.workloads6, self.config.services6)
        placements = believed(said, whole["endpoints"], self.config.cluster_ranges, own, self.config.node)
        found = adapt.adapt(whole, placements, self._floor(said))
        nodes = {each.node: each.addresses for each in said}
        found = between.joined(found, self.config.node, nodes, _text_of(self.config.agent_dir / "ca.crt"))
        with self._lock:
            self._adapted = (document, moves, found)
            if of is not document:
                self._read = (document, whole)
                self._probed = adapt.probes(whole["endpoints"])
                self._measured = {
                    endpoint["id"]: frozenset(what)
                    for endpoint in whole["endpoints"]
                    if (what := endpoint.get("measure"))
                }
        return found

    def rules(self, rules: Rules | None) -> Rules | None:
        with self._lock:
            return adapt.adapted_rules(rules, self._probed)

    # Applying.
    def take_over(self, document: Mapping[str, Any]) -> list[dict[str, Any]]:
        if self.kernel.holding:
            self.local.introduce(self.kernel)
            self._place(document)
        return []

    def start(self, document: Mapping[str, Any]) -> None:
        """Other nodes' pods get their identities here; between all pods nothing is rewritten."""
        grants.write(self.config, document)
        self._place(document)
        self._part(document)

    def _place(self, document: Mapping[str, Any]) -> None:
        """This node's own pods are in the tables since they were attested."""
        own = {address for pod in self.local.pods().values() for address in pod.pair}
        everywhere = set(own)
        elsewhere: dict[str, int] = {}
        for endpoint in document["endpoints"]:
            found = {address for address in (endpoint["v4"], endpoint["v6"]) if address}
            everywhere |= found
            if document["placements"].get(endpoint["id"]) != self.config.node:
                elsewhere |= dict.fromkeys(found - own, endpoint["identity"])
        self.kernel.elsewhere(elsewhere)
        if self._platform != everywhere:
            network.set_platform(self.config, sorted(everywhere))
            self._platform = everywhere

    def _part(self, document: Mapping[str, Any]) -> None:
        """Clients of other nodes' pods that are gone aren't left waiting."""
        placed = {
            endpoint["id"]: (endpoint["identity"], endpoint["v4"], endpoint["v6"])
            for endpoint in document["endpoints"]
            if document["placements"].get(endpoint["id"], self.config.node) != self.config.node
        }
        for replica, (identity, v4, v6) in self._away.items():
            if placed.get(replica) != (identity, v4, v6):
                self.kernel.backend_left(replica, identity, (v4 or v6, v6 or v4))
        self._away = placed

    def published(self, document: Mapping[str, Any]) -> None:
        """Tables and names hold it: pods that waited for that go on."""
        with self._lock:
            known = self._adapted
            moves = known[1] if known is not None and known[2] is document else -1
        self.admission.in_force(document, moves)

    def end(self, document: Mapping[str, Any]) -> list[str]:
        """Kubernetes ends pods; what stays longer than that takes is closed."""
        return []

    def down(self) -> set[str]:
        """Pods that end or aren't ready any more, on whatever node; what isn't anywhere is no backend anyhow."""
        everything = [self.said(), *self.others.said()]
        out = {replica for said in everything for replica, pod in said.pods.items() if not pod.serving}
        return out - {replica for said in everything for replica, pod in said.pods.items() if pod.serving}

    # Reporting.
    def running(self) -> list[str]:
        return list(self.local.writing())

    def tail(self, replica: str, place: tuple[int, int]) -> Tail | None:
        def where() -> Path | None:
            pod = self.local.writing().get(replica)
            return folder(pod) if pod is not None else None

        return PodTail(replica, where, place) if where() is not None else None

    def measured(self) -> dict[str, Measured]:
        with self._lock:
            asked = self._measured
        pods = {replica: pod for replica, pod in self.local.pods().items() if replica in asked}
        # Looked for once for as long as it is there: it is somewhere among all pods' groups.
        known = {uid: group for uid, group in self._groups.items() if group.exists()}
        self._groups = {
            pod.uid: group
            for pod in pods.values()
            if (group := known.get(pod.uid) or groups.of_pod(pod.uid)) is not None
        }
        return {
            replica: Measured(asked[replica], pod.v4 or pod.v6, self._groups.get(pod.uid))
            for replica, pod in pods.items()
        }

    def reports(self) -> list[dict[str, Any]]:
        """Phases come from the cluster's API, by whoever drives it."""
        return []

    def problems(self) -> list[str]:
        return [text for text in (self._node_problem, self._publish_problem, self.others.problem) if text]

    def noted(self, health: dict[str, Any]) -> None:
        """The kubelet's probes of the agent look at a file: how old it is, and what it says."""
        file = self.config.run / "agent" / "health.json"
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        said = {"healthy": health["healthy"], "problems": health["problems"]}
        write_private(file, json.dumps(said, sort_keys=True).encode())

    def enter(self, command: Command) -> Process:
        pod = self.local.get(command.replica)
        if pod is None:
            raise CantEnter("The replica isn't on this node any more.")
        return entering.Entered(self.config, bundles.find(pod.container, pod.app), command)

    def clear(self) -> None:
        entering.clear(self.config)

    def tidy(self, document: Mapping[str, Any]) -> None:
        """Images are kubelet's to remove."""

    # Sweeping.
    def _sweep_loop(self) -> None:
        node_due = time.monotonic() + NODE_SECONDS
        look_due = 0.0
        #: Uids of pods that aren't what desired state wants, whatever they were let in as.
        altered: set[str] = set()
        while True:
            time.sleep(SWEEP_SECONDS)
            try:
                self.local.sweep(self.kernel)
                others = {replica for replica, pod in self.local.pods().items() if pod.uid in altered}
                wanted = {r: entry for r, entry in self.admission.wanted().items() if r not in others}
                self.local.settle(self.kernel, wanted, UNWANTED_SECONDS)
                if time.monotonic() >= node_due or self._node_problem or self.others.unheard:
                    self._look_at_node()
                    node_due = time.monotonic() + NODE_SECONDS
                    self._published = None  # whoever took it away takes nothing
                if time.monotonic() >= look_due and self.local.pods():
                    seen = self.cluster.pods_on(self.config.node)
                    self.local.observe(seen)
                    altered = self.admission.altered(seen)
                    look_due = time.monotonic() + LOOK_SECONDS
                self.publish()
                self._publish_problem = ""
                self._leaving.look(bool(self.local.pods()))
            except ClusterError as error:
                self._publish_problem = f"where this node's pods are can't be published: {error}"
            except Exception as error:  # the next round must come
                log.exception("sweeping pods failed")
                self._publish_problem = f"the node's pods can't be looked at: {error}"


def _text_of(file: Path) -> str:
    try:
        return file.read_text()
    except OSError:
        return ""


def _single(address: str) -> str:
    return f"{address}/{ipaddress.ip_address(address).max_prefixlen}"


def interfaces_of(wanted: tuple[str, ...]) -> list[str]:
    """Names of the interfaces that have these addresses. Raises ``CalledProcessError``."""
    done = subprocess.run(["ip", "-j", "address"], capture_output=True, text=True, check=True)
    return [
        link["ifname"]
        for link in json.loads(done.stdout)
        if any(entry.get("local") in wanted for entry in link.get("addr_info", []))
    ]
