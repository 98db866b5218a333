"""Pods of a cell on two real nodes: the verdicts of a machine, with nobody above the agents.

No control plane runs anywhere here: everything that restarts or moves does so from what nodes keep and tell
each other.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import pytest

from cells.boundary import Topology, model
from dataplane import addresses
from dataplane.agent.pods.cluster import NAMESPACE, Cluster
from dataplane.agent.pods.logs import PodTail
from dataplane.agent.pods.placements import Said
from infra.cluster.images import BUSYBOX
from infra.config import Config
from tests.cluster import LONGEST, until
from tests.dataplane.agent.pods.plane import PodPlane

pytestmark = [pytest.mark.cluster, pytest.mark.root, pytest.mark.timeout(LONGEST)]
CELL, NEIGHBOUR = "cell-7-0123abcd", "cell-8-0123abcd"
WEB, CLIENT, OTHER = 300, 301, 302
TCP, UDP, CLOSED = 8080, 8081, 8090
#: Replica → index of its symbolic addresses, identity, node.
REPLICAS = {
    "r1": (9001, WEB, 1),
    "r2": (9002, WEB, 2),
    "r3": (9003, CLIENT, 1),
    "r4": (9004, OTHER, 1),
    "r5": (9005, CLIENT, 2),
}


class Stage:
    """``web`` on both nodes, ``client`` that calls it on both, ``other`` that may call nobody."""

    def __init__(self, plane: PodPlane) -> None:
        self.plane = plane

    def topology(self, connected: bool) -> Topology:
        config = self.plane.config

        def replicas(identity: int) -> tuple[model.Replica, ...]:
            return tuple(
                model.Replica(name, *addresses.workload(config, index), True)
                for name, (index, owner, _) in REPLICAS.items()
                if owner == identity
            )

        def workload(identity: int, name: str, **more: Any) -> model.Workload:
            pair = addresses.service(config, identity)
            return model.Workload(identity, name, *pair, replicas=replicas(identity), **more)

        ports = (model.Endpoint(1001, "tcp", TCP, "tcp"), model.Endpoint(1002, "udp", UDP, "udp"))
        edges = (model.Connection(1101, "tcp", WEB, "tcp"), model.Connection(1102, "udp", WEB, "udp"))
        workloads = (
            workload(WEB, "web", endpoints=ports),
            workload(CLIENT, "client", connections=edges if connected else ()),
            workload(OTHER, "other"),
        )
        gateway = addresses.cell_gateway(config, 7)
        cell = model.Cell(
            7, 1, "acme", "shop", "production", 1100, 400, *gateway, strict=True, workloads=workloads
        )
        north = addresses.workload(config, addresses.GATEWAY_NORTH)
        resolver = addresses.workload(config, addresses.RESOLVER)
        own = (config.workloads4, config.services4, config.workloads6, config.services6)
        return Topology(
            cells=(cell,),
            north4=north.v4,
            north6=north.v6,
            resolver4=resolver.v4,
            resolver6=resolver.v6,
            floor=tuple((str(network), "FLOOR") for network in own),
        )

    def apply(self, connected: bool = True) -> None:
        probe = {"type": "tcp", "port": TCP, "path": "/", "interval": 1, "timeout": 1, "grace": 30}
        endpoints = [
            self.plane.endpoint(name, index, identity, CELL, **({"probe": probe} if identity == WEB else {}))
            for name, (index, identity, _) in REPLICAS.items()
        ]
        self.plane.apply(self.topology(connected), endpoints)

    def create(self, *names: str, **spec: Any) -> None:
        for name in names:
            self.plane.create(CELL, name, REPLICAS[name][2], **spec)
        self.plane.await_running(CELL, *names)

    def web(self, *names: str) -> None:
        """Pods of ``web`` with a probe, and somebody who answers in them."""
        container = {
            "name": "app",
            "image": self.plane.endpoint("r1", 1, 1, CELL)["process"]["image"],
            "command": ["sh", "-c", "echo hello; sleep 100000"],
            "readinessProbe": {"tcpSocket": {"port": TCP}, "periodSeconds": 1},
        }
        self.create(*names, containers=[container])
        for name in names:
            self.plane.serve(REPLICAS[name][2], name, [TCP, CLOSED], [UDP])

    def ready(self, name: str) -> bool:
        conditions = self.plane.pod(CELL, name)["status"].get("conditions", [])
        return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)

    def asked(self, caller: str, *calls: Sequence[Any]) -> list[str]:
        return self.plane.asked(REPLICAS[caller][2], caller, *calls)

    def addresses(self, name: str) -> tuple[str, str]:
        return self.plane.addresses(REPLICAS[name][2], name)

    def service(self) -> tuple[str, str]:
        return addresses.service(self.plane.config, WEB)

    def direct(self, *names: str) -> list[tuple[str, str, int]]:
        """Calls of every declared port of these replicas, by the addresses of their pods."""
        return [
            (protocol, address, port)
            for name in names
            for address in self.addresses(name)
            for protocol, port in (("tcp", TCP), ("udp", UDP))
        ]


@pytest.fixture(scope="module")
def stage(pod_plane: PodPlane) -> Stage:
    made = Stage(pod_plane)
    made.apply()
    for name in (CELL, NEIGHBOUR, "others"):
        pod_plane.namespace(name)
    made.web("r1", "r2")
    made.create("r3", "r4")
    pod_plane.serve(1, "r3", [TCP])
    return made


def test_declared_connections_pass_on_one_node_and_between_two_over_both_families(stage: Stage) -> None:
    calls = stage.direct("r1", "r2")
    assert stage.asked("r3", *calls) == ["r1"] * 4 + ["r2"] * 4


def test_what_is_not_declared_does_not_pass(stage: Stage) -> None:
    closed = [("tcp", address, CLOSED) for name in ("r1", "r2") for address in stage.addresses(name)]
    assert stage.asked("r3", *closed) == [""] * 4
    calls = stage.direct("r1", "r2")
    assert stage.asked("r4", *calls) == [""] * len(calls)
    # Nor the other way round, on either node.
    back = [("tcp", address, TCP) for address in stage.addresses("r3")]
    assert stage.asked("r1", *back) == ["", ""]
    assert stage.asked("r2", *back) == ["", ""]


def test_a_service_address_leads_to_pods_of_both_nodes(stage: Stage) -> None:
    for address in stage.service():
        for protocol, port in (("tcp", TCP), ("udp", UDP)):
            found = set(stage.asked("r3", *[(protocol, address, port)] * 24))
            assert found == {"r1", "r2"}, (protocol, address)
    assert stage.asked("r4", ("tcp", stage.service()[0], TCP)) == [""]


def test_a_name_is_answered_by_the_nodes_resolver_to_whom_it_concerns(stage: Stage) -> None:
    with stage.plane.resolver(1):
        resolver = addresses.workload(stage.plane.config, addresses.RESOLVER)
        until(lambda: stage.asked("r3", ("dns", resolver.v4, 53, "web")) != [""], 20, "nobody answers")
        for address in resolver:
            assert stage.asked("r3", ("dns", address, 53, "web")) == [stage.service()[0]]
            assert stage.asked("r4", ("dns", address, 53, "web")) == [""]
        # Whoever isn't a replica isn't answered at all.
        assert stage.plane.ask(1, "", [("dns", resolver.v4, 53, "web")]) == [""]


def test_a_pod_cannot_speak_as_another(stage: Stage) -> None:
    web = stage.addresses("r1")[0]
    # r4 takes r3's address, which may call web; and an address that nobody has.
    for source in (stage.addresses("r3")[0], web.rsplit(".", 1)[0] + ".250"):
        assert stage.asked("r4", ("udp", web, UDP, source)) == [""]


def test_kubelet_may_ask_the_declared_probe_port_and_the_node_nothing_else(stage: Stage) -> None:
    for name in ("r1", "r2"):
        until(lambda name=name: stage.ready(name), 20, f"kubelet's probe doesn't reach {name}")  # type: ignore[misc]
    here, there = stage.addresses("r1"), stage.addresses("r2")
    calls = [("tcp", a, TCP) for a in here] + [("tcp", a, CLOSED) for a in here]
    calls += [("tcp", a, TCP) for a in there]
    # The other node's kubelet has no business there.
    assert stage.plane.ask(1, "", calls) == ["r1", "r1", "", "", "", ""]


def test_others_pods_are_untouched_and_strangers_to_cells(stage: Stage) -> None:
    plane = stage.plane
    plane.create("others", "", 1, name="a")
    plane.create("others", "r4", 2, name="b")  # a label means nothing outside of cells
    plane.await_running("others", "a", "b")
    assert set(plane.agents[2].pods()) == {"r2"}
    mine, theirs = plane.found("others", "a"), plane.found("others", "b")
    for name, found in (("a", mine), ("b", theirs)):
        plane.server.open(plane.inside(found.node, found.netns), name, [TCP], [UDP])
    assert plane.ask(1, mine.netns, [("tcp", a, TCP) for a in theirs.addresses]) == ["b", "b"]
    calls = stage.direct("r1", "r2")
    assert plane.ask(1, mine.netns, calls) == [""] * len(calls)
    assert stage.asked("r3", *[("tcp", a, TCP) for a in (*mine.addresses, *theirs.addresses)]) == [""] * 4
    # Nor as r3, on the same node or on the other one.
    source = stage.addresses("r3")[0]
    for target in (stage.addresses("r1")[0], stage.addresses("r2")[0]):
        assert plane.ask(1, mine.netns, [("udp", target, UDP, source)]) == [""]


def test_a_pod_that_claims_what_it_is_not_gets_no_network(stage: Stage) -> None:
    plane = stage.plane
    plane.create(NEIGHBOUR, "r5", 2, name="thief")
    plane.create(CELL, "r1", 2, name="double")
    plane.create(CELL, "", 1, name="nobody")
    plane.create(CELL, "r77", 1, name="unknown")
    plane.create(CELL, "r5", 1, name="rooted", hostPID=True)
    # The cluster has no Pod Security that would have refused it.
    root = {"name": "app", "image": BUSYBOX, "command": ["sleep", "9"], "securityContext": {"runAsUser": 0}}
    plane.create(CELL, "r5", 1, name="superuser", containers=[root])
    image = {"name": "app", "image": "cytoplane.dev/pause:1", "command": ["/pause"]}
    plane.create(CELL, "r5", 2, name="swapped", containers=[image])
    expected = {
        (NEIGHBOUR, "thief"): "r5 isn't a replica of this namespace's cell",
        (CELL, "double"): "r1 is a pod on node1 still",
        (CELL, "nobody"): "the pod says no replica",
        (CELL, "unknown"): "desired state has no r77 here",
        (CELL, "rooted"): "a cell's pod can't have hostPID",
        (CELL, "superuser"): "container app runs as root",
        (CELL, "swapped"): "desired state doesn't name the image of container app for r5",
    }
    for (namespace, name), sentence in expected.items():
        until(
            lambda n=namespace, p=name, s=sentence: any(s in said for said in plane.events(n, p)),  # type: ignore[misc]
            40,
            f"{name} isn't refused with {sentence!r}: {plane.events(namespace, name)}",
        )
    assert not any(plane.runs(*pod) for pod in expected)
    for pod in expected:
        plane.delete(*pod)
    assert "r5" not in plane.agents[1].pods() and "r5" not in plane.agents[2].pods()


def test_without_its_agent_a_node_goes_on_and_new_pods_of_cells_wait(stage: Stage) -> None:
    plane = stage.plane
    kept = [
        plane.connection(1, "r3", (address, TCP))
        for name in ("r1", "r2")
        for address in stage.addresses(name)
    ]
    assert [each.ask("?") for each in kept] == ["?"] * 4
    plane.agents[2].kill()
    plane.create("others", "", 2, name="c")
    plane.create(CELL, "r5", 2)
    plane.await_running("others", "c")
    sentence = "the node's agent isn't there, so the pod waits"
    until(lambda: any(sentence in said for said in plane.events(CELL, "r5")), 30, "it doesn't wait")
    assert not plane.runs(CELL, "r5")
    # What was enforced is, what was allowed is, what was open stays open.
    calls = stage.direct("r2")
    assert stage.asked("r3", *calls) == ["r2"] * len(calls)
    assert stage.asked("r4", *calls) == [""] * len(calls)
    assert [each.ask("!") for each in kept] == ["!"] * 4
    plane.agents[2].start()
    plane.agents[2].await_ready()
    plane.await_running(CELL, "r5")
    assert [each.ask("again") for each in kept] == ["again"] * 4
    for each in kept:
        each.close()
    # From what it had kept: nobody told it anything.
    assert stage.asked("r5", *stage.direct("r1", "r2")) == ["r1"] * 4 + ["r2"] * 4


def test_a_pod_that_goes_is_left_out_and_one_that_comes_is_taken_in_without_anybody_above(
    stage: Stage,
) -> None:
    plane = stage.plane
    before = stage.addresses("r2")
    waiting = plane.connection(1, "r3", (before[0], TCP))
    assert waiting.ask("?") == "?"
    plane.server.forget("r2")
    plane.delete(CELL, "r2")
    until(lambda: "r2" not in plane.agents[2].pods(), 20, "its agent doesn't notice")
    address = stage.service()[0]
    until(lambda: set(stage.asked("r3", *[("tcp", address, TCP)] * 12)) == {"r1"}, 20, "calls still go there")
    # Its client isn't left waiting.
    until(waiting.ended, 10, "its client waits for ever")
    waiting.close()
    stage.web("r2")
    assert stage.addresses("r2") != before
    until(
        lambda: set(stage.asked("r3", *[("tcp", address, TCP)] * 16)) == {"r1", "r2"}, 20, "it isn't taken in"
    )


def test_a_pod_that_is_not_ready_any_more_gets_no_new_calls_from_either_node(stage: Stage) -> None:
    plane, address = stage.plane, stage.service()[0]
    plane.server.forget("r1")
    for caller in ("r3", "r5"):
        until(
            lambda who=caller: set(stage.asked(who, *[("tcp", address, TCP)] * 16)) == {"r2"},  # type: ignore[misc]
            30,
            f"{caller} still calls it",
        )
    plane.serve(1, "r1", [TCP, CLOSED], [UDP])
    for caller in ("r3", "r5"):
        until(
            lambda who=caller: set(stage.asked(who, *[("tcp", address, TCP)] * 16)) == {"r1", "r2"},  # type: ignore[misc]
            30,
            f"{caller} doesn't call it again",
        )


def test_a_declaration_that_is_taken_back_ends_connections_between_nodes(stage: Stage) -> None:
    plane = stage.plane
    kept = [plane.connection(1, "r3", (stage.addresses(name)[0], TCP)) for name in ("r1", "r2")]
    assert [each.ask("?") for each in kept] == ["?", "?"]
    stage.apply(connected=False)
    for each in kept:
        until(each.ended, 5, "it goes on")
        each.close()
    calls = stage.direct("r1", "r2")
    assert stage.asked("r3", *calls) == [""] * len(calls)
    stage.apply()
    until(lambda: stage.asked("r3", *calls) == ["r1"] * 4 + ["r2"] * 4, 10, "it doesn't come back")


def test_what_a_pod_writes_is_read_from_its_runtimes_files(stage: Stage) -> None:
    pod = stage.plane.agents[1].pods()["r1"]
    root = stage.plane.cluster.node_home(1) / "var/log/pods"
    folder = root / f"{pod['namespace']}_{pod['name']}_{pod['uid']}" / pod["app"]
    tail = PodTail("r1", lambda: folder)
    assert [(line["replica"], line["text"]) for line in tail.read()] == [("r1", "hello")]
    assert tail.read() == []


def test_nodes_are_content_apart_from_the_gateway_that_nobody_started(stage: Stage) -> None:
    for agent in stage.plane.agents.values():
        until(
            lambda agent=agent: all("gateway" in problem for problem in agent.health()["problems"]),  # type: ignore[misc]
            20,
            str(agent.health()["problems"]),
        )
    said = stage.plane.said()
    assert {node: set(document["pods"]) for node, document in said.items()} == {
        "node1": {"r1", "r3", "r4"},
        "node2": {"r2", "r5"},
    }
    for node, document in said.items():
        number = int(node[-1])
        assert (
            document["addresses"]
            == [str(a.ip) for a in stage.plane.cluster.node(number)][: len(document["addresses"])]
        )
    assert time.time() - min(p["since"] for d in said.values() for p in d["pods"].values()) > 0


def test_what_a_node_has_said_goes_with_the_node(stage: Stage) -> None:
    with stage.plane.two_nodes.client() as client:
        for node in ("node1", "node2"):
            uid = client.document(f"/api/v1/nodes/{node}")["metadata"]["uid"]
            placements = client.document(f"/api/v1/namespaces/{NAMESPACE}/configmaps/placements-{node}")
            (owner,) = placements["metadata"]["ownerReferences"]
            assert (owner["kind"], owner["name"], owner["uid"]) == ("Node", node, uid)
        # One that is taken out of the cluster.
        client.create("/api/v1/nodes", {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "ghost"}})
        uid = client.document("/api/v1/nodes/ghost")["metadata"]["uid"]
        said = Said("ghost", ("192.0.2.1",), {}).document()
        Cluster(Config(home=stage.plane.home(1))).publish("ghost", uid, said)
        path = f"/api/v1/namespaces/{NAMESPACE}/configmaps/placements-ghost"
        assert client.get(path).status_code == 200
        client.remove("/api/v1/nodes/ghost")
        until(lambda: client.get(path).status_code == 404, 60, "what it has said stays")
