"""HTTP between cells on two real nodes: through the caller's node's gateway, and through the other's to what
is there. Envoys, agents, kernels, the node's rules and the cluster's network are real."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cells.boundary import Topology, model
from dataplane import addresses
from dataplane.agent.namespaces import run_in
from dataplane.gateway import between, identity
from dataplane.planes import gateways
from infra.cluster.images import BUSYBOX
from infra.cluster.settings import NODES
from tests.cluster import LONGEST, until
from tests.dataplane.agent.pods.plane import PodPlane
from tests.dataplane.gateway.nodes import PLANE, Authority
from tests.dataplane.gateway.stage import Answer, _Application, _Server

pytestmark = [pytest.mark.cluster, pytest.mark.root, pytest.mark.timeout(LONGEST)]
STORE, SHOP = "cell-17-0123abcd", "cell-18-0123abcd"
API, WEB, STRANGER = 310, 311, 312
PORT, LISTENER = 8080, 10000
#: Replica → index of its symbolic addresses, identity, cell, node.
REPLICAS = {
    "r11": (9011, API, STORE, 1),
    "r12": (9012, API, STORE, 2),
    "r13": (9013, WEB, SHOP, 1),
    "r14": (9014, WEB, SHOP, 2),
    "r15": (9015, STRANGER, SHOP, 1),
}
#: A pod that has a tenth of a processor and uses it.
BUSY: dict[str, Any] = {
    "containers": [
        {
            "name": "app",
            "image": BUSYBOX,
            "command": ["sh", "-c", "while :; do :; done"],
            "resources": {"limits": {"cpu": "100m"}},
        }
    ]
}
CALLER = "x-cytoplane-caller"
_CALLING = Path(__file__).with_name("calling.py")


class Stage:
    """``web`` of a shop calls ``api`` of a store, which is told who calls; ``stranger`` may call nobody."""

    def __init__(self, plane: PodPlane, authority: Authority) -> None:
        self.plane, self.authority = plane, authority
        self.servers: list[_Server] = []
        #: Gateways that may meet.
        self.named = [gateways.name(PLANE, node) for node in NODES]

    def topology(self, replicas: tuple[str, ...]) -> Topology:
        config = self.plane.config

        def workload(owner: int, name: str, **more: object) -> model.Workload:
            found = tuple(
                model.Replica(key, *addresses.workload(config, REPLICAS[key][0]), True)
                for key in replicas
                if REPLICAS[key][1] == owner
            )
            return model.Workload(owner, name, *addresses.service(config, owner), replicas=found, **more)  # type: ignore[arg-type]

        def cell(number: int, project: str, gateway: int, *workloads: model.Workload) -> model.Cell:
            pair = addresses.cell_gateway(config, number)
            return model.Cell(
                number, 1, "acme", project, "production", 1100 + number, gateway, *pair, workloads=workloads
            )

        endpoint = model.Endpoint(1001, "http", PORT, "http", visibility="tenant", callers=True)
        edge = model.Connection(1101, "api", API, "http", listener_port=LISTENER)
        north, resolver = (
            addresses.workload(config, index) for index in (addresses.GATEWAY_NORTH, addresses.RESOLVER)
        )
        own = (config.workloads4, config.services4, config.workloads6, config.services6)
        return Topology(
            cells=(
                cell(17, "store", 410, workload(API, "api", endpoints=(endpoint,))),
                cell(18, "shop", 411, workload(WEB, "web", connections=(edge,)), workload(STRANGER, "other")),
            ),
            north4=north.v4,
            north6=north.v6,
            north_port=addresses.NORTH_HTTP_PORT,
            resolver4=resolver.v4,
            resolver6=resolver.v6,
            floor=tuple((str(network), "FLOOR") for network in own),
        )

    def apply(self, *replicas: str) -> None:
        """Desired state with these replicas; none: all. The load of those of ``api`` is asked for."""
        wanted = replicas or tuple(REPLICAS)
        endpoints = [
            self.plane.endpoint(key, *REPLICAS[key][:3])
            | ({"measure": ["cpu", "requests"]} if REPLICAS[key][1] == API else {})
            for key in wanted
        ]
        self.plane.apply(self.topology(wanted), endpoints, gateways=self.named)

    def serve(self, replica: str) -> None:
        """An application in the replica's pod that says who it is and what it was asked."""
        node = REPLICAS[replica][3]
        path = self.plane.inside(node, self.plane.netns(node, replica))
        address = self.plane.addresses(node, replica)[0]
        server = run_in(path, lambda: _Server((address, PORT), _Application))
        server.name = replica
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True).start()
        self.servers.append(server)

    def calls(
        self, replica: str, target: tuple[str, int] | None = None, times: int = 1
    ) -> list[Answer | None]:
        """What the service answers a replica that lies about who it is; None where nobody does."""
        node = REPLICAS[replica][3]
        service = addresses.service(self.plane.config, API).v4, PORT
        arguments = [*(target or service), {CALLER: "acme/bank/admin"}, times]
        netns = self.plane.netns(node, replica)
        command = ["nsenter", f"--net={netns}", "--", "/usr/bin/python3", "-I", "-S", str(_CALLING)]
        done = self.plane.two_nodes.ran(f"node{node}", *command, json.dumps(arguments))
        assert done.returncode == 0, done.stderr
        return [answer and Answer(*answer) for answer in json.loads(done.stdout)]

    def call(self, replica: str, target: tuple[str, int] | None = None) -> Answer | None:
        return self.calls(replica, target)[0]

    def answering(self, replica: str, times: int = 24) -> set[str]:
        """Who answers; "" stands for nobody or for a gateway that has nobody."""
        found = self.calls(replica, times=times)
        return {answer.asked["name"] if answer and answer.status == 200 else "" for answer in found}


@pytest.fixture(scope="module")
def stage(pod_plane: PodPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    made = Stage(pod_plane, Authority(tmp_path_factory.mktemp("authority") / "authority"))
    for node in NODES:
        home = pod_plane.home(node)
        (home / "agent/ca.crt").write_text(made.authority.signer.pem)
        identity.write(home / "gateway" / between.IDENTITY, *made.authority.identity(PLANE, node))
    with contextlib.ExitStack() as stack:
        for node in NODES:
            stack.enter_context(pod_plane.gateway(node))
        made.apply()
        for namespace in (STORE, SHOP):
            pod_plane.namespace(namespace)
        for replica, (_, _, namespace, node) in REPLICAS.items():
            pod_plane.create(namespace, replica, node, **(BUSY if replica == "r11" else {}))
        for replica, (_, _, namespace, _) in REPLICAS.items():
            pod_plane.await_running(namespace, replica, seconds=180)
        for replica in ("r11", "r12"):
            made.serve(replica)
        yield made
        for server in made.servers:
            server.shutdown()
            server.server_close()
        for namespace in (STORE, SHOP):
            pod_plane.vacate(namespace)


def said(stage: Stage) -> str:
    return "\n".join(
        f"{node}: {stage.plane.agents[node].said()[-1500:]}\n{_tail(stage.plane.home(node) / 'gateway.log')}"
        for node in NODES
    )


def _tail(file: Path) -> str:
    return file.read_text()[-1500:] if file.exists() else ""


def test_callers_on_either_node_reach_replicas_on_both(stage: Stage) -> None:
    for caller in ("r13", "r14"):
        try:
            until(lambda caller=caller: stage.answering(caller) == {"r11", "r12"}, 90, f"{caller} doesn't")  # type: ignore[misc]
        except AssertionError:
            raise AssertionError(f"{stage.answering(caller)}\n{said(stage)}") from None


def test_a_replica_hears_its_own_nodes_gateway_and_the_true_caller(stage: Stage) -> None:
    own = addresses.cell_gateway(stage.plane.config, 17).v4
    for caller in ("r13", "r14"):
        for answer in stage.calls(caller, times=12):
            assert answer is not None and answer.status == 200
            assert answer.asked["from"] == own
            assert answer.header(CALLER) == ["acme/shop/web"]


def test_each_node_counts_what_its_own_pods_do_and_a_request_once(stage: Stage) -> None:
    """A gateway's requests to another node are that node's; processor time is the pod's control group's."""
    orders = {node: stage.plane.agents[node].order for node in NODES}
    until(lambda: stage.answering("r13") == {"r11", "r12"}, 60, "both aren't called")
    begun = time.monotonic()
    for order in orders.values():
        order("load")
    times = 30
    for caller in ("r13", "r14"):
        assert all(answer is not None for answer in stage.calls(caller, times=times))
    time.sleep(max(0.0, 3 - (time.monotonic() - begun)))
    reports = [report for order in orders.values() for report in json.loads(order("load"))]
    passed = time.monotonic() - begun
    found = {report["id"]: report for report in reports}
    assert sorted(found) == ["r11", "r12"]
    assert len(reports) == 2
    requests = sum(report["requests"] for report in reports)
    # Each node's seconds are its own, a little fewer than all.
    assert 2 * times <= round(requests * passed) <= 2 * times * 1.5
    # How much it gets of its tenth depends on what else goes on.
    assert found["r12"]["cpu"] < found["r11"]["cpu"] < 0.2


def test_who_declares_nothing_reaches_neither_gateways_nor_replicas(stage: Stage) -> None:
    assert stage.call("r15") is None
    listener = addresses.cell_gateway(stage.plane.config, 17).v4, LISTENER
    assert stage.call("r15", listener) is None
    for replica in ("r11", "r12"):
        direct = stage.plane.addresses(REPLICAS[replica][3], replica)[0], PORT
        assert stage.call("r15", direct) is None
        assert stage.call("r13", direct) is None, "past the gateway"


def test_no_pod_reaches_the_port_between_gateways(stage: Stage) -> None:
    nodes = {document["addresses"][0] for document in stage.plane.said().values()}
    assert len(nodes) == 2
    north = addresses.workload(stage.plane.config, addresses.GATEWAY_NORTH).v4
    for address in (*nodes, north):
        calls = [("tcp", address, between.PORT)]
        assert stage.plane.asked(1, "r13", *calls) == [""]
        with pytest.raises(OSError):
            stage.plane.connection(1, "r13", (address, between.PORT))


def test_a_replica_that_is_wanted_no_more_is_called_from_nowhere(stage: Stage) -> None:
    stage.apply("r11", "r13", "r14", "r15")
    try:
        until(lambda: stage.answering("r13") == {"r11"}, 60, "the other node's replica is still called")
        assert stage.answering("r14") == {"r11"}
    finally:
        stage.apply()
    until(lambda: stage.answering("r13") == {"r11", "r12"}, 60, "it isn't called again")


def test_a_node_that_is_named_no_more_is_out(stage: Stage) -> None:
    everybody, stage.named = stage.named, [gateways.name(PLANE, 1)]
    try:
        stage.apply()
        until(lambda: stage.answering("r13") == {"r11"}, 60, "it is still believed")
    finally:
        stage.named = everybody
        stage.apply()
    until(lambda: stage.answering("r13") == {"r11", "r12"}, 60, "it isn't called again")
