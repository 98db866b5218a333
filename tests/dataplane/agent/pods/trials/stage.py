"""Two tenants' pods on both nodes of a plane, for what attackers and faults do to them.

acme has ``web`` on each node, ``client`` that may call it, and ``other`` that nobody may call; globex has
``user``, in which an attacker runs programs, on each node. Everybody would answer whom the kernel lets through.
"""

from __future__ import annotations

import json
import secrets
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from cells.boundary import Topology, model
from dataplane import addresses
from infra.cluster.enter import holder
from infra.cluster.images import BUSYBOX, cluster_environment, load_base
from infra.cluster.settings import NODES
from tests.dataplane.agent.pods.plane import PodPlane
from tests.dataplane.agent.pods.talk import Server

SHOP, EVIL = "cell-27-0123abcd", "cell-28-0123abcd"
WEB, CLIENT, OTHER, USER = 320, 321, 322, 323
TCP, UDP, CLOSED = 8080, 8081, 8090
#: Replica → index of its symbolic addresses, identity, namespace, node, what it answers.
REPLICAS = {
    "r21": (9021, WEB, SHOP, 1, "b"),
    "r22": (9022, WEB, SHOP, 2, "b"),
    "r23": (9023, CLIENT, SHOP, 1, "a"),
    "r24": (9024, OTHER, SHOP, 1, "c"),
    "r25": (9025, OTHER, SHOP, 2, "c"),
    "r26": (9026, USER, EVIL, 1, "e"),
    "r27": (9027, USER, EVIL, 2, "e"),
    "r28": (9028, CLIENT, SHOP, 2, "a"),
}
ATTACKERS = {1: "r26", 2: "r27"}
#: Of an attack, seconds.
_LONGEST = 240


class Stage:
    """The pods; ``base`` is the image that has an interpreter for the attacker's programs."""

    def __init__(self, plane: PodPlane) -> None:
        self.plane = plane
        self.base = load_base(plane.cluster)
        self._servers = {node: Server() for node in NODES}
        for server in self._servers.values():
            server.start()

    # Desired state.
    def topology(self, connected: bool) -> Topology:
        config = self.plane.config

        def workload(identity: int, name: str, **more: Any) -> model.Workload:
            replicas = tuple(
                model.Replica(replica, *addresses.workload(config, index), True)
                for replica, (index, owner, *_) in REPLICAS.items()
                if owner == identity
            )
            pair = addresses.service(config, identity)
            return model.Workload(identity, name, *pair, replicas=replicas, **more)

        def cell(number: int, tenant: int, names: tuple[str, str], *workloads: model.Workload) -> model.Cell:
            gateway = addresses.cell_gateway(config, number)
            return model.Cell(
                number, tenant, *names, "production", 1100 + number, 400 + number, *gateway,
                strict=True, workloads=workloads,
            )  # fmt: skip

        ports = (model.Endpoint(1201, "tcp", TCP, "tcp"), model.Endpoint(1202, "udp", UDP, "udp"))
        edges = (model.Connection(1211, "tcp", WEB, "tcp"), model.Connection(1212, "udp", WEB, "udp"))
        shop = (
            workload(WEB, "web", endpoints=ports),
            workload(CLIENT, "client", connections=edges if connected else ()),
            workload(OTHER, "other"),
        )
        evil = workload(USER, "user", endpoints=(model.Endpoint(1221, "tcp", TCP, "tcp"),))
        north, resolver = (
            addresses.workload(config, index) for index in (addresses.GATEWAY_NORTH, addresses.RESOLVER)
        )
        own = (config.workloads4, config.services4, config.workloads6, config.services6)
        closed = [*map(str, own), "127.0.0.0/8", "169.254.0.0/16", "fe80::/10", "::/127"]
        return Topology(
            cells=(cell(27, 1, ("acme", "shop"), *shop), cell(28, 2, ("globex", "evil"), evil)),
            north4=north.v4,
            north6=north.v6,
            resolver4=resolver.v4,
            resolver6=resolver.v6,
            floor=tuple((network, "FLOOR") for network in closed),
        )

    def apply(self, connected: bool = True) -> None:
        endpoints = [
            self.plane.endpoint(
                replica, index, identity, namespace, image=self.base if identity == USER else BUSYBOX
            )
            for replica, (index, identity, namespace, *_) in REPLICAS.items()
        ]
        self.plane.apply(self.topology(connected), endpoints)

    # Pods.
    def create(self) -> None:
        for namespace in (SHOP, EVIL):
            self.plane.namespace(namespace)
        for replica, (_, identity, namespace, node, _) in REPLICAS.items():
            image = self.base if identity == USER else BUSYBOX
            container: dict[str, Any] = {"name": "app", "image": image, "command": ["sleep", "100000"]}
            container["imagePullPolicy"] = "Never"  # `latest` would be asked for anew.
            self.plane.create(namespace, replica, node, containers=[container])
        self.await_running()
        self.serve(*REPLICAS)

    def await_running(self, *replicas: str) -> None:
        for replica in replicas or REPLICAS:
            self.plane.await_running(REPLICAS[replica][2], replica, seconds=180)

    def serve(self, *replicas: str) -> None:
        """Somebody who answers in each, on every port; whom he hears is the kernel's to say."""
        for replica in replicas:
            server = self._servers[self.node(replica)]
            server.open(self.path(replica), REPLICAS[replica][4], [TCP, CLOSED], [UDP])

    def deaf(self, node: int) -> None:
        """Nobody answers in a node's pods any more, until ``serve``."""
        self._servers[node].close()
        self._servers[node] = Server()
        self._servers[node].start()

    def close(self) -> None:
        for server in self._servers.values():
            server.close()
        for namespace in (SHOP, EVIL):
            self.plane.vacate(namespace)

    def node(self, replica: str) -> int:
        return REPLICAS[replica][3]

    def path(self, replica: str) -> Path:
        """A pod's network namespace, as the machine sees it."""
        node = self.node(replica)
        return self.plane.inside(node, self.plane.netns(node, replica))

    def addresses(self, replica: str) -> tuple[str, str]:
        return self.plane.addresses(self.node(replica), replica)

    def network_of(self, place: str) -> Path:
        """A node's own network namespace, or the control plane's."""
        if place == "control":
            return self.plane.cluster.netns(place)
        return Path(f"/proc/{holder(self.plane.cluster, place)}/ns/net")

    def denied(self) -> list[tuple[int, int, int, str]]:
        """(source, destination, port, reason) of what both nodes refused since the last time."""
        return [
            tuple(row)
            for node in NODES
            for row in json.loads(self.plane.agents[node].order("denied"))
        ]  # fmt: skip

    # Attacks.
    def run_as_user(self, replica: str, code: str) -> Any:
        """The last line that a program prints in a pod's container, as JSON: its user, its rights."""
        node = self.node(replica)
        pod = self.plane.pod(REPLICAS[replica][2], replica)
        container = pod["status"]["containerStatuses"][0]["containerID"].removeprefix("containerd://")
        enter = ["ctr", "--namespace", "k8s.io", "tasks", "exec", "--exec-id", f"try-{secrets.token_hex(4)}"]
        return self._run(node, code, *enter, container, "python3", "-")

    def run_as_root(self, replica: str, code: str) -> Any:
        """The same with every capability in the pod's network namespace, more than a tenant ever has."""
        node = self.node(replica)
        enter = ["nsenter", f"--net={self.plane.netns(node, replica)}", "--"]
        return self._run(node, code, *enter, "/usr/bin/python3", "-I", "-")

    def _run(self, node: int, code: str, *command: str) -> Any:
        enter = [sys.executable, "-m", "infra.cluster.enter", f"node{node}", "--"]
        done = subprocess.run(
            [*enter, *command],
            input=code,
            env=cluster_environment(self.plane.cluster),
            capture_output=True,
            text=True,
            check=False,
            timeout=_LONGEST,
        )
        assert done.returncode == 0, f"the attack itself failed: {done.stderr[-1500:]}"
        return json.loads(done.stdout.strip().splitlines()[-1])


def together(*work: Callable[[], Any]) -> list[Any]:
    """What these return, called at the same time."""
    with ThreadPoolExecutor(len(work)) as pool:
        return list(pool.map(lambda function: function(), work))
