"""What the plugin is answered: every way in which a pod is or isn't let be a replica, without a cluster."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dataplane.agent import network
from dataplane.agent.pods import admission as module
from dataplane.agent.pods import cluster as cluster_module
from dataplane.agent.pods import server
from dataplane.agent.pods.admission import Admission
from dataplane.agent.pods.cluster import ClusterError
from dataplane.agent.pods.local import Local
from dataplane.agent.pods.placements import Placement, Said
from infra.config import Config
from tests.dataplane.agent.pods.shapes import confined
from tests.dataplane.agent.pods.test_local import Kernel

PLACE = "cell-7-0123abcd"
IMAGE = "cytoplane.dev/busybox:1"


class Cluster:
    """An API server's answers."""

    def __init__(self) -> None:
        self.pods: dict[tuple[str, str], dict[str, Any]] = {}
        self.silent: set[str] = set()
        self.away = False

    def add(
        self, name: str, replica: str, *, uid: str = "", node: str = "node1", **spec: Any
    ) -> dict[str, Any]:
        labels = {"cytoplane.dev/replica": replica} if replica else {}
        metadata: dict[str, Any] = {
            "name": name,
            "namespace": PLACE,
            "uid": uid or f"u-{name}",
            "labels": labels,
        }
        whole = confined({"nodeName": node, "containers": [{"name": "app", "image": IMAGE}], **spec})
        self.pods[PLACE, name] = made = {"metadata": metadata, "spec": whole, "status": {"phase": "Pending"}}
        return made

    def pod(self, namespace: str, name: str) -> dict[str, Any] | None:
        if self.away:
            raise ClusterError("the cluster's API server doesn't answer")
        return self.pods.get((namespace, name))

    def ready(self, node: str) -> bool:
        return node not in self.silent

    def pods_of(self, namespace: str, replica: str) -> list[dict[str, Any]]:
        return [
            pod
            for pod in self.pods.values()
            if pod["metadata"]["labels"].get("cytoplane.dev/replica") == replica
        ]


class Others:
    def __init__(self) -> None:
        self.all: list[Said] = []

    def said(self) -> list[Said]:
        return self.all


class Desk:
    """Admission on ``node1`` with everything around it; tables follow at once unless ``slow``."""

    def __init__(self, folder: Path) -> None:
        self.config = Config(home=folder, node_name="node1")
        self.cluster, self.others, self.kernel = Cluster(), Others(), Kernel()
        self.kernel.distrust = ""  # type: ignore[attr-defined]
        self.local = Local(folder / "pods.json", self._moved)
        self.slow, self.published = False, 0
        self.document: dict[str, Any] = {"endpoints": []}
        self.admission = Admission(self.config, self.cluster, self.local, self.others, self._publish)  # type: ignore[arg-type]
        self.admission.kernel = self.kernel  # type: ignore[assignment]

    def _moved(self) -> None:
        self.admission.moved()
        if not self.slow:
            self.admission.in_force(self.document, self.admission.moves)

    def _publish(self) -> None:
        if self.cluster.away:
            raise ClusterError("the cluster's API server doesn't answer")
        self.published += 1

    def desire(self, *replicas: str) -> None:
        self.document = {
            "endpoints": [
                {"id": r, "identity": 300, "pod": {"namespace": PLACE}, "process": {"image": IMAGE}}
                for r in replicas
            ]
        }
        self.admission.in_force(self.document, self.admission.moves)

    def ask(self, name: str, command: str = "ADD", **more: str) -> str | None:
        question = {
            "command": command,
            "container": f"c-{name}",
            "netns": "/var/run/netns/cni-1",
            "ifname": "eth0",
            "args": f"IgnoreUnknown=1;K8S_POD_NAMESPACE={PLACE};K8S_POD_NAME={name}",
        }
        return self.admission.answer({**question, **more})


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    (tmp_path / "netns").touch()

    def find(name: str, path: Path, inner: str) -> network.Foreign:
        assert str(path) == "/run/netns/cni-1"
        addresses = ("10.112.128.5", "fd63::5")
        return network.Foreign(name, path, "veth1", 7, 1, b"", b"", 0, addresses)

    class Seen(type(Path())):  # type: ignore[misc]
        def stat(self, **more: Any) -> Any:
            return (
                (tmp_path / "netns").stat() if str(self).startswith("/run/netns/") else super().stat(**more)
            )

    monkeypatch.setattr(module.network, "find_foreign", find)
    monkeypatch.setattr(module, "Path", Seen)
    monkeypatch.setattr(module, "STATE_SECONDS", 0.3)
    monkeypatch.setattr(module, "FORCE_SECONDS", 0.3)
    return Desk(tmp_path)


def test_a_pod_that_is_changed_after_it_was_let_in_is_found_out(desk: Desk) -> None:
    desk.desire("r1")
    made = desk.cluster.add("r1-a", "r1")
    assert desk.ask("r1-a") is None
    assert desk.admission.altered([made]) == set()
    assert desk.admission.altered([desk.cluster.add("r1-b", "r1")]) == {"u-r1-a"}, "it hides from who looks"
    made["spec"]["containers"][0] = {**made["spec"]["containers"][0], "image": "somebody/else:1"}
    assert desk.admission.altered([made]) == {"u-r1-a"}
    desk.document = {"endpoints": []}
    desk.admission.in_force(desk.document, desk.admission.moves)
    assert desk.admission.altered([made]) == set(), "what isn't wanted is closed in any case"


@pytest.mark.parametrize("answer", [None, {}, {"kind": "Status"}])
def test_only_a_list_of_pods_says_which_pods_there_are(
    answer: dict[str, Any] | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever else answers in the API server's place mustn't get all of them closed."""
    api = cluster_module.Cluster(Config(home=tmp_path))
    monkeypatch.setattr(api, "_send", lambda *_, **__: answer)
    with pytest.raises(ClusterError):
        api.pods_on("node1")
    monkeypatch.setattr(api, "_send", lambda *_, **__: {"kind": "PodList", "items": None})
    assert api.pods_on("node1") == []


def test_a_replicas_pod_is_let_in_and_told_to_the_others(desk: Desk) -> None:
    desk.desire("r1")
    desk.cluster.add("r1-a", "r1")
    assert desk.ask("r1-a") is None
    pod = desk.local.pods()["r1"]
    assert (pod.uid, pod.v4, pod.v6, pod.identity, pod.netns) == (
        "u-r1-a",
        "10.112.128.5",
        "fd63::5",
        300,
        "/run/netns/cni-1",
    )
    assert desk.kernel.calls == [("forget", "7"), ("take", "r1")] and desk.published == 1
    assert desk.ask("r1-a", "DEL") is None
    assert desk.local.pods() == {}
    # Of somebody who is gone already, or never was.
    assert desk.ask("r1-a", "DEL") is None and desk.ask("x", "DEL") is None


def refusals() -> dict[str, tuple[Callable[[Desk], object], str]]:
    def other_node(desk: Desk) -> None:
        desk.cluster.add("p", "r1", node="node2")

    def distrust(desk: Desk) -> None:
        desk.kernel.distrust = "the self-test fails"  # type: ignore[attr-defined]

    def away(desk: Desk) -> None:
        desk.cluster.away = True

    return {
        "a pod that nobody knows": (lambda desk: desk.cluster.pods.clear(), "the cluster knows no pod p"),
        "a pod of another node": (other_node, "the pod belongs to another node"),
        "a pod without a label": (lambda desk: desk.cluster.add("p", ""), "the pod says no replica"),
        "a label that is none": (lambda desk: desk.cluster.add("p", "r01"), "the pod says no replica"),
        "an unknown replica": (lambda desk: desk.cluster.add("p", "r9"), "desired state has no r9 here"),
        "host": (lambda desk: desk.cluster.add("p", "r1", hostPID=True), "a cell's pod can't have hostPID"),
        "distrust": (distrust, "the node can't isolate it yet: the self-test fails"),
        "no API server": (away, "the cluster's API server doesn't answer"),
    }


@pytest.mark.parametrize("case", refusals())
def test_everything_else_is_refused_with_a_sentence(desk: Desk, case: str) -> None:
    desk.desire("r1")
    desk.cluster.add("p", "r1")
    arrange, sentence = refusals()[case]
    arrange(desk)
    said = desk.ask("p")
    assert said is not None and said.startswith(sentence)
    assert desk.local.pods() == {} and desk.kernel.calls == [] and desk.published == 0


def test_a_question_about_somebody_else_is_none(desk: Desk) -> None:
    desk.desire("r1")
    desk.cluster.add("p", "r1")
    for args in (
        "",
        "K8S_POD_NAMESPACE=default;K8S_POD_NAME=p",
        f"K8S_POD_NAMESPACE={PLACE}",
        f"K8S_POD_NAMESPACE={PLACE};K8S_POD_NAMESPACE={PLACE};K8S_POD_NAME=p",
    ):
        assert desk.ask("p", args=args) == "the question isn't one about a cell's pod"
    for more in ({"netns": ""}, {"netns": "relative"}, {"ifname": ""}, {"container": ""}):
        assert desk.ask("p", **more) == "the question isn't one about a cell's pod"
    assert desk.ask("p", "MOVE") == "'MOVE' isn't known"


def test_another_pod_of_the_same_name_is_told_apart_by_its_uid(desk: Desk) -> None:
    desk.desire("r1")
    desk.cluster.add("p", "r1", uid="new")
    args = f"K8S_POD_NAMESPACE={PLACE};K8S_POD_NAME=p;K8S_POD_UID="
    assert desk.ask("p", args=f"{args}old") == "another pod has the name p by now"
    assert desk.ask("p", args=f"{args}new") is None


def test_a_pod_that_comes_before_its_desired_state_waits_for_it(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "STATE_SECONDS", 20.0)
    desk.cluster.add("p", "r1")
    threading.Timer(0.2, lambda: desk.desire("r1")).start()
    assert desk.ask("p") is None


def test_pods_of_one_namespace_that_wait_for_nothing_do_not_use_up_everybodys_time(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "STATE_SECONDS", 30.0)
    for number in range(1, module.WAITING + 2):
        desk.cluster.add(f"p{number}", f"r{number}")
    said: list[str | None] = []
    waiting = [
        threading.Thread(target=lambda n=number: said.append(desk.ask(f"p{n}")))  # type: ignore[misc]
        for number in range(1, module.WAITING + 1)
    ]
    for thread in waiting:
        thread.start()
    end = time.monotonic() + 10
    while desk.admission._waiting[PLACE] < module.WAITING and time.monotonic() < end:
        time.sleep(0.01)
    last = module.WAITING + 1
    assert desk.ask(f"p{last}") == f"desired state has no r{last} here"
    assert said == []
    desk.desire(*(f"r{number}" for number in range(1, last)))
    for thread in waiting:
        thread.join(20)
    assert said == [None] * module.WAITING and not desk.admission._waiting


def test_pods_of_many_namespaces_leave_room_for_those_that_neednt_wait(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "STATE_SECONDS", 30.0)
    desk.admission._waiting.update({f"cell-{n}-0123abcd": module.WAITING for n in range(1, 7)})
    assert desk.admission._waiting.total() == module.WAITING_OF_ALL < server.WORKERS
    desk.cluster.add("p1", "r1")
    begun = time.monotonic()
    assert desk.ask("p1") == "desired state has no r1 here"
    assert time.monotonic() - begun < 5
    desk.desire("r1")
    assert desk.ask("p1") is None


def test_a_pod_of_another_namespace_holds_nobodys_replica_whatever_a_node_says(desk: Desk) -> None:
    desk.desire("r1")
    desk.cluster.add("new", "r1")
    desk.cluster.add("old", "r1", uid="u-old", node="node2")
    for elsewhere in ("cell-8-0123abcd", "../../nodes"):
        placement = Placement("node2", "u-old", elsewhere, "10.112.130.5", "")
        desk.others.all = [Said("node2", ("10.112.1.12",), {"r1": placement})]
        assert desk.ask("new") is None
        assert desk.ask("new", "DEL") is None


def test_a_replica_is_one_pod_of_the_plane(desk: Desk) -> None:
    desk.desire("r1")
    desk.cluster.add("new", "r1")
    old = desk.cluster.add("old", "r1", uid="u-old", node="node2")
    placement = Placement("node2", "u-old", PLACE, "10.112.130.5", "")
    desk.others.all = [Said("node2", ("10.112.1.12",), {"r1": placement})]
    assert desk.ask("new") == "r1 is a pod on node2 still"
    # It is to end and its node lives: it still runs.
    old["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    assert desk.ask("new") == "r1 is a pod on node2 still"
    # Its node is lost: nobody will say that it has ended.
    desk.cluster.silent.add("node2")
    assert desk.ask("new") is None


def test_a_pod_that_is_not_to_end_holds_its_replica_on_a_silent_node_too(desk: Desk) -> None:
    desk.desire("r1")
    desk.cluster.add("new", "r1")
    desk.cluster.add("old", "r1", uid="u-old", node="node2")
    placement = Placement("node2", "u-old", PLACE, "10.112.130.5", "")
    desk.others.all = [Said("node2", ("10.112.1.12",), {"r1": placement})]
    desk.cluster.silent.add("node2")
    assert desk.ask("new") == "r1 is a pod on node2 still"


def test_a_pod_waits_for_the_replicas_earlier_one_to_end(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "STATE_SECONDS", 20.0)
    desk.desire("r1")
    desk.cluster.add("new", "r1")
    old = desk.cluster.add("old", "r1", uid="u-old", node="node2")
    old["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    placement = Placement("node2", "u-old", PLACE, "10.112.130.5", "")
    desk.others.all = [Said("node2", ("10.112.1.12",), {"r1": placement})]
    threading.Timer(0.2, lambda: desk.cluster.pods.pop((PLACE, "old"))).start()
    assert desk.ask("new") is None
    assert not desk.admission._waiting


@pytest.mark.parametrize("phase", ["Succeeded", "Failed"])
def test_a_pod_that_has_ended_or_is_gone_holds_no_replica(desk: Desk, phase: str) -> None:
    desk.desire("r1")
    desk.cluster.add("new", "r1")
    placement = Placement("node2", "u-old", PLACE, "10.112.130.5", "")
    desk.others.all = [Said("node2", ("10.112.1.12",), {"r1": placement})]
    old = desk.cluster.add("old", "r1", uid="u-old", node="node2")
    old["status"]["phase"] = phase
    assert desk.ask("new") is None
    assert desk.ask("new", "DEL") is None
    del desk.cluster.pods[PLACE, "old"]
    assert desk.ask("new") is None


def test_a_pod_whose_tables_are_not_written_is_taken_back(desk: Desk) -> None:
    desk.desire("r1")
    desk.cluster.add("p", "r1")
    desk.slow = True
    assert desk.ask("p") == "the node's tables aren't written yet"
    assert desk.local.pods() == {} and desk.published == 0
    assert desk.kernel.calls[1:3] == [("take", "r1"), ("release", "r1")]


def test_a_pod_that_the_others_cannot_be_told_of_is_taken_back(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.desire("r1")
    desk.cluster.add("p", "r1")

    def lost() -> None:
        raise ClusterError("the cluster's API server doesn't answer")

    monkeypatch.setattr(desk.admission, "_publish", lost)
    assert desk.ask("p") == "the cluster's API server doesn't answer"
    assert desk.local.pods() == {}


def test_two_pods_at_once_do_not_both_become_a_replica(desk: Desk) -> None:
    desk.desire("r1")
    desk.cluster.add("a", "r1")
    desk.cluster.add("b", "r1")
    desk.admission._busy.add("r1")
    assert desk.ask("b") == "another pod is just becoming r1"
    desk.admission._busy.clear()
    assert desk.ask("a") is None
