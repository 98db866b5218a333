"""A world on two real nodes: pods of a cluster, agents that attest them, tables that the agents write.

Replicas of a component are on different nodes where there are two. Whoever asks with the help of the
socket hooks is a process of the caller's node; who asks without is one of the machine, in the caller's
namespace: the nodes' hooks don't meet it.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import random
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from cells.boundary.encoding import encode
from cells.boundary.model import Boundary, Topology
from dataplane import addresses
from dataplane.agent.namespaces import run_in, write_sysctls
from infra.cluster.images import cluster_environment
from infra.cluster.settings import NODES
from infra.config import Config
from tests.cluster import run_cluster, until
from tests.conformance.answering import Answers
from tests.conformance.asking_inside import answers as answered
from tests.conformance.documents import decode
from tests.conformance.engine import Report
from tests.conformance.outside_nodes import OutsideNodes
from tests.conformance.probes import (
    CONTAINER,
    DOOR,
    LISTENER,
    NAME,
    NODE_ITSELF,
    NORTH,
    PING,
    PUBLIC,
    SERVICE,
    SHORT,
    STRANGER,
    Probe,
)
from tests.conformance.relay import Relay
from tests.conformance.world import NODE, Copy, World
from tests.dataplane.agent.pods.node import Agent
from tests.dataplane.agent.pods.plane import PodPlane

#: Sockets that one asker has open at a time, and askers at the same time.
BATCH, ASKERS = 150, 12
APPLY_SECONDS, PODS_SECONDS = 60, 240


class KubernetesSite:
    """Worlds on a plane's two nodes."""

    def __init__(self, plane: PodPlane) -> None:
        self._plane = plane

    @property
    def config(self) -> Config:
        return self._plane.config

    def engine(self, world: World, topology: Topology, boundary: Boundary) -> KubernetesEngine:
        return KubernetesEngine(world, topology, boundary, self._plane)


@contextlib.contextmanager
def kubernetes() -> Iterator[KubernetesSite]:
    """A cluster for a while, under the tests' number."""
    with run_cluster() as two_nodes:
        plane = PodPlane(two_nodes)
        try:
            plane.start()
            yield KubernetesSite(plane)
        finally:
            plane.stop()


class Inside:
    """A process in a node that asks there."""

    def __init__(self, plane: PodPlane, node: int) -> None:
        command = [sys.executable, "-m", "infra.cluster.enter", f"node{node}", "--"]
        command += [sys.executable, "-m", "tests.conformance.asking_inside"]
        self._process = subprocess.Popen(
            command,
            env={**cluster_environment(plane.cluster), "PYTHONDONTWRITEBYTECODE": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._waiting: dict[int, Future[list[str]]] = {}
        self._numbers, self._lock = itertools.count(1), threading.Lock()
        threading.Thread(target=self._read, daemon=True).start()

    def ask(self, netns: str, calls: list[dict[str, Any]]) -> list[str]:
        job: Future[list[str]] = Future()
        with self._lock:
            number = next(self._numbers)
            self._waiting[number] = job
            assert self._process.stdin is not None
            self._process.stdin.write(json.dumps({"id": number, "netns": netns, "calls": calls}) + "\n")
            self._process.stdin.flush()
        return job.result(timeout=120)

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            said = json.loads(line)
            job = self._waiting.pop(said["id"])
            if "error" in said:
                job.set_exception(RuntimeError(said["error"]))
            else:
                job.set_result(said["answers"])

    def close(self) -> None:
        self._process.kill()
        self._process.wait()


def _reached(agent: Agent, wanted: dict[str, int]) -> bool:
    return json.loads(agent.order("reached")) == wanted


class KubernetesEngine:
    """``topology`` is what the boundary was made of."""

    def __init__(self, world: World, topology: Topology, boundary: Boundary, plane: PodPlane) -> None:
        self.world, self.topology, self.plane, self.config = world, topology, plane, plane.config
        self._dice = random.Random(world.seed)
        #: Replica's index → node.
        self._node: dict[int, int] = {}
        self._copies: dict[int, Copy] = {}
        self._pods: dict[int, dict[str, Any]] = {}
        self._spaces: dict[tuple[str, str, str], str] = {}
        self._answers = Answers()
        self._relays: list[Relay] = []
        self._open = contextlib.ExitStack()
        try:
            self._build(boundary)
        except BaseException:
            self.close()
            raise

    def _build(self, boundary: Boundary) -> None:
        plane = self.plane
        outside = self._outside = OutsideNodes(plane.cluster)
        self._open.callback(outside.close)
        for cell, place in self.world.places.items():
            self._spaces[cell] = plane.namespace(f"cell-{place.number}-{self.world.seed & 0xFFFFFFFF:08x}")
        for thing in self.world.things:
            first = self._dice.choice(NODES)
            for position, copy in enumerate(thing.copies):
                self._node[copy.index] = NODES[(first + position) % len(NODES)]
                self._copies[copy.index] = copy
        self.apply(boundary)
        for thing in self.world.things:
            for copy in thing.copies:
                plane.create(self._spaces[thing.cell], copy.id, self._node[copy.index])
        for thing in self.world.things:
            names = [copy.id for copy in thing.copies]
            plane.await_running(self._spaces[thing.cell], *names, seconds=PODS_SECONDS)
        for node in NODES:
            known = plane.agents[node].pods()
            for index, copy in self._copies.items():
                if copy.id in known:
                    self._pods[index] = known[copy.id]
        self._await(len(self._copies))
        for thing in self.world.things:
            for copy in thing.copies:
                path = self._inside(copy.index)
                write_sysctls(path, {"net/ipv4/ping_group_range": "0 0"})
                self._answers.listen(path, thing.ports, str(copy.index))
        for name, opened in (("outside", outside.sockets), ("node", outside.node_sockets)):
            for server in opened:
                self._answers.register(server, name)
        self._answers.start()
        for node in NODES:
            self._open.enter_context(plane.resolver(node))
        self._askers = {node: Inside(plane, node) for node in NODES}
        for asker in self._askers.values():
            self._open.callback(asker.close)
        self._relay(boundary)

    def node_of(self, index: int) -> int:
        """Where a replica is."""
        return self._node[index]

    def _inside(self, index: int) -> Path:
        """A replica's namespace, as the machine sees it."""
        return self.plane.inside(self._node[index], self._pods[index]["netns"])

    # Desired state.
    def apply(self, boundary: Boundary) -> None:
        endpoints = [
            self.plane.endpoint(copy.id, copy.index, thing.identity, self._spaces[thing.cell])
            for thing in self.world.things
            for copy in thing.copies
        ]
        self.plane.hand_out(encode(boundary), endpoints)
        if self._pods:
            self._await(len(self._copies))
            self._relay(boundary)

    def _await(self, placed: int) -> None:
        """Until both nodes' tables hold the newest desired state with everybody in it."""
        wanted = {"generation": self.plane.generation, "placements": placed}
        for node, agent in self.plane.agents.items():
            until(
                partial(_reached, agent, wanted),
                APPLY_SECONDS,
                f"node{node} doesn't get there: {agent.order('reached')}",
            )

    def _relay(self, boundary: Boundary) -> None:
        """A gateway for each node. What is on the other one is reached by that one's gateway."""
        for relay in self._relays:
            relay.close()
        document = encode(boundary)
        real = {copy.id: self._pods[index] for index, copy in self._copies.items()}
        for cluster in document["gateway"]["clusters"]:
            cluster["backends"] = [[r, real[r]["v4"], port] for r, _, port in cluster["backends"]]
        adapted = decode(document)
        nodes = {copy.id: self._node[index] for index, copy in self._copies.items()}
        spaces = {node: self.plane.inside(node, f"/run/netns/{self.config.name}-gateway") for node in NODES}

        def beyond(node: int, replica: str) -> Path | None:
            return spaces[nodes[replica]] if nodes[replica] != node else None

        self._relays = [Relay(spaces[node], adapted, self.topology, partial(beyond, node)) for node in NODES]

    # Asking.
    def ask(self, probes: Iterable[Probe]) -> dict[Probe, str]:
        """Who answered each probe, or ""."""
        groups: dict[tuple[int, bool, int], list[Probe]] = {}
        for probe in probes:
            groups.setdefault((probe.caller, probe.hooked, self._from(probe)), []).append(probe)
        found: dict[Probe, str] = {}
        with ThreadPoolExecutor(ASKERS) as pool:
            work = [
                pool.submit(self._ask, *who, asked[start : start + BATCH])
                for who, asked in groups.items()
                for start in range(0, len(asked), BATCH)
            ]
            for future in work:
                found.update(future.result())
        return found

    def _from(self, probe: Probe) -> int:
        """The node that a probe is asked on; a process of a node's own asks the pods of both."""
        if probe.caller == NODE_ITSELF:
            return NODES[probe.number % len(NODES)]
        return self._node.get(probe.caller, NODES[0])

    def _ask(self, caller: int, hooked: bool, node: int, probes: list[Probe]) -> dict[Probe, str]:
        calls = [{"probe": asdict(probe), **self._call(probe)} for probe in probes]
        if caller == STRANGER:
            said = run_in(self._outside.path, partial(answered, calls))
        elif caller == NODE_ITSELF:
            said = self._askers[node].ask("", calls)
        elif hooked:
            said = self._askers[node].ask(self._pods[caller]["netns"], calls)
        else:
            said = run_in(self._inside(caller), partial(answered, calls))
        return dict(zip(probes, said, strict=True))

    def _call(self, probe: Probe) -> dict[str, Any]:
        """Where a probe goes; see asking_inside.py."""

        def at(address: str, port: int, said: str = "") -> dict[str, Any]:
            return {"address": address, "port": port, "said": said, "name": "", "server": ""}

        sixth = probe.family == 6
        if probe.way in (NAME, SHORT, DOOR):
            name = probe.where
            if probe.way != DOOR:
                callee = self.world.thing(probe.callee)
                name = callee.name if probe.way == SHORT else f"{callee.name}.{callee.project}"
            server = addresses.workload(self.config, addresses.RESOLVER)[sixth]
            said = probe.where if probe.way == DOOR else ""
            return {**at("", probe.number, said), "name": name, "server": server}
        if probe.way == NORTH:
            north = self.topology.north6 if sixth else self.topology.north4
            return at(north, self.topology.north_port, probe.where)
        if probe.way == PUBLIC:
            return at(NODE[sixth], self.config.apps_port, probe.where)
        if probe.where:
            return at(probe.where, probe.number)
        callee = self.world.thing(probe.callee)
        if probe.way == SERVICE:
            return at(addresses.service(self.config, callee.service)[sixth], probe.number)
        if probe.way in (CONTAINER, PING):
            pod = self._pods[probe.copy]
            return at(pod["v6"] if sixth else pod["v4"], probe.number)
        assert probe.way == LISTENER
        gateway = self.world.place(callee).gateway
        return at(addresses.cell_gateway(self.config, gateway)[sixth], probe.number)

    def reports(self) -> set[Report]:
        found = set()
        for agent in self.plane.agents.values():
            for source, destination, port, protocol in json.loads(agent.order("passed")):
                found.add(Report(source, destination, port, protocol))
        return found

    def close(self) -> None:
        for relay in self._relays:
            relay.close()
        self._answers.close()
        self._open.close()
        self.plane.forget(*self._spaces.values())
