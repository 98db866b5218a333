"""The data plane's chart on two real nodes, from its images: what runs with which rights, what a killed agent
leaves alone, and that nothing is left when the chart goes. Joining and deploying are the controller's tests."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dataplane.agent.pods.cluster import Cluster
from dataplane.agent.pods.leaving import KEPT
from dataplane.agent.pods.verify import LABEL
from dataplane.drivers.kubernetes import helm
from dataplane.node.leaving import announce
from infra import config as installation
from infra.cluster.images import BUSYBOX, load
from infra.config import Config
from infra.images import __main__ as images
from tests.cluster import LONGEST, TwoNodes, until
from tests.infra.charts.test_data_plane import CHART

pytestmark = [
    pytest.mark.root,
    pytest.mark.cluster,
    pytest.mark.timeout(LONGEST),
    pytest.mark.skipif(os.geteuid() != 0, reason="a Kubernetes cluster needs root"),
]
PARTS = ("agent", "gateway", "resolver")
_SECONDS = 120
#: Prints the ids of programs at the root of the control groups.
_HOOKS = """
import os
from bpf import loader, sys
root = os.open(loader.cgroup_root(), os.O_RDONLY | os.O_DIRECTORY)
print(*{one for kind in loader.HOOKS.values() for one in sys.attached(root, kind)})
"""


class Plane:
    """The chart's release. Nobody answers at its control plane's address: that is a fault like others."""

    def __init__(self, nodes: TwoNodes) -> None:
        # Another number than that of agents that other tests start on these nodes themselves.
        self.nodes, self.net = nodes, (nodes.cluster.number + 8) % 16
        self.before = {place: self.chain(place) for place in ("node1", "node2")}
        self.hooks_before = {place: self.hooks(place) for place in self.before}

    def helm(self, *words: str) -> None:
        command = [
            helm.executable(),
            *words,
            "--kubeconfig",
            str(self.nodes.cluster.kubeconfig),
            "--namespace",
            "cytoplane",
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
        assert done.returncode == 0, done.stderr

    def install(self) -> None:
        values = {"control.url": "https://127.0.0.1:9", "net": self.net, "controller.enabled": "false"}
        settings = [word for name, value in values.items() for word in ("--set", f"{name}={value}")]
        self.helm("upgrade", "--install", "plane", str(CHART), "--create-namespace", *settings)

    def chain(self, place: str) -> Any:
        found = self.nodes.ran(place, "cat", "/etc/cni/net.d/10-cluster.conflist")
        return json.loads(found.stdout)

    def containers(self, place: str) -> dict[str, dict[str, Any]]:
        """Container → its status, of a node's two pods."""
        found = self.nodes.pods("cytoplane", "app.kubernetes.io/instance=plane").values()
        return {
            status["name"]: status
            for pod in found
            if pod["spec"].get("nodeName") == place
            for status in pod["status"].get("containerStatuses") or []
        }

    def well(self, place: str) -> bool:
        """All that can be ready without a control plane."""
        found = self.containers(place)
        return all(found.get(name, {}).get("ready") for name in (*PARTS, "keeper"))

    def await_well(self, place: str) -> None:
        end = time.monotonic() + _SECONDS
        while not self.well(place):
            assert time.monotonic() < end, self.said(place)
            time.sleep(0.5)

    def said(self, place: str) -> dict[str, str]:
        """Of containers that aren't ready: their last lines."""
        found: dict[str, str] = {}
        with self.nodes.client() as client:
            for name, pod in self.nodes.pods("cytoplane", "app.kubernetes.io/instance=plane").items():
                for status in pod["status"].get("containerStatuses") or []:
                    if pod["spec"].get("nodeName") == place and not status["ready"]:
                        path = f"/api/v1/namespaces/cytoplane/pods/{name}/log"
                        log = client.get(path, params={"container": status["name"], "tailLines": "20"})
                        found[status["name"]] = log.text
        return found

    def process(self, place: str, container: str) -> str:
        """Id of a container's first process."""
        identity = self.containers(place)[container]["containerID"].removeprefix("containerd://")
        listed = self.nodes.ran(place, "ctr", "-n", "k8s.io", "tasks", "ls").stdout
        return next(line.split()[1] for line in listed.splitlines() if line.startswith(identity))

    def hooks(self, place: str) -> set[str]:
        """Programs at the root of a node's control groups."""
        done = self.nodes.ran(place, sys.executable, "-c", _HOOKS)
        assert done.returncode == 0, done.stderr
        return set(done.stdout.split())

    def put(self, place: str) -> dict[str, list[str]]:
        """What the agent has put on a node, by kind."""

        def lines(*command: str) -> list[str]:
            return self.nodes.ran(place, *command).stdout.splitlines()

        name = f"cy{self.net}"
        guard = lines("tc", "filter", "show", "dev", "eth0", "egress")
        return {
            "interfaces": [line for line in lines("ip", "-br", "link") if line.startswith(f"{name}v")],
            "guard": [line for line in guard if f"{name}:" in line],
            "namespaces": [line for line in lines("ls", "/run/netns") if line.startswith(f"{name}-")],
            "hooks": sorted(self.hooks(place) - self.hooks_before[place]),
            "pins": [line for line in lines("ls", "/sys/fs/bpf") if line == f"cytoplane-{self.net}"],
            "rules": [
                line for line in lines("nft", "list", "tables") if line.endswith(f"cytoplane_{self.net}")
            ],
        }

    def left(self, place: str) -> str:
        """What the agent says about leaving; "": nothing."""
        return self.nodes.ran(place, "cat", "/var/lib/cytoplane/run/left").stdout

    def links(self, place: str) -> dict[str, int]:
        """The platform's interfaces of gateway and resolver on a node, and their numbers."""
        found = json.loads(self.nodes.ran(place, "ip", "-j", "link", "show", "type", "veth").stdout)
        return {
            link["ifname"]: link["ifindex"]
            for link in found
            if link["ifname"] in (f"cy{self.net}v2", f"cy{self.net}v3")
        }


@pytest.fixture(scope="module")
def plane(
    bare_nodes: TwoNodes, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Plane]:
    cache = installation.load().cache
    capture = request.config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled():
        images.build(cache, images._say)
    target: Path = tmp_path_factory.mktemp("images") / "images.tar"
    images.archive(cache, target, ["agent", "gateway", "resolver"], "0.1.0")
    load(bare_nodes.cluster, target)
    target.unlink()
    made = Plane(bare_nodes)
    made.install()
    for place in ("node1", "node2"):
        made.await_well(place)
    yield made


def _status(nodes: TwoNodes, process: str) -> dict[str, str]:
    text = Path(f"/proc/{process}/status").read_text()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in text.splitlines())}


def test_what_tenants_reach_has_no_right_left_and_the_agent_only_its_own(plane: Plane) -> None:
    for place in ("node1", "node2"):
        for name in ("gateway", "resolver"):
            status = _status(plane.nodes, plane.process(place, name))
            assert {status[kind] for kind in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}
            assert status["NoNewPrivs"] == "1"
            assert int(status["Uid"].split()[0]) > 61000
        assert _status(plane.nodes, plane.process(place, "keeper"))["CapEff"] == "0" * 16
        agent = _status(plane.nodes, plane.process(place, "agent"))
        # SYS_MODULE, SYS_PTRACE, SYS_BOOT, MKNOD, SYS_CHROOT, SETUID: what a privileged one would have.
        assert not int(agent["CapBnd"], 16) & (1 << 16 | 1 << 19 | 1 << 22 | 1 << 27 | 1 << 18 | 1 << 7)


def test_the_chain_ends_with_the_plugin_and_others_pods_dont_notice(plane: Plane) -> None:
    for place in ("node1", "node2"):
        assert plane.chain(place)["plugins"][:-1] == plane.before[place]["plugins"]
        assert plane.chain(place)["plugins"][-1]["type"] == "cytoplane"
    with plane.nodes.namespace() as namespace:
        plane.nodes.create_pod(namespace, "other", "echo here", "node1")
        until(
            lambda: plane.nodes.pods(namespace)["other"]["status"]["phase"] == "Succeeded",
            60,
            "a pod of nobody's cell doesn't run",
        )


def test_a_killed_agent_leaves_gateway_and_resolver_where_they_are(plane: Plane) -> None:
    links, gateway, resolver = (
        plane.links("node1"),
        plane.process("node1", "gateway"),
        plane.process("node1", "resolver"),
    )
    assert len(links) == 2
    restarts = plane.containers("node1")["agent"]["restartCount"]
    subprocess.run(["kill", "-9", plane.process("node1", "agent")], check=True)
    until(
        lambda: plane.containers("node1")["agent"]["restartCount"] > restarts,
        60,
        "the agent isn't started again",
    )
    until(lambda: plane.well("node1"), _SECONDS, "the agent isn't well again")
    time.sleep(1)
    assert plane.links("node1") == links
    assert (plane.process("node1", "gateway"), plane.process("node1", "resolver")) == (gateway, resolver)


def test_when_the_chart_goes_nothing_of_it_is_left_but_where_pods_of_cells_are(
    plane: Plane, tmp_path: Path
) -> None:
    """Last: the release is gone afterwards."""
    there = plane.put("node1")
    assert all(there.values()), "nothing could be left otherwise"
    names = {
        place: {name for name, found in plane.put(place).items() if found} for place in ("node1", "node2")
    }
    with plane.nodes.namespace() as namespace, plane.nodes.client() as client:
        # Nobody's cell has it, so it gets no network; the cluster says that it is one's pod all the same.
        pod = f"/api/v1/namespaces/{namespace}/pods"
        container = {"name": "app", "image": BUSYBOX, "command": ["sleep", "1000"]}
        spec = {"containers": [container], "nodeName": "node2", "terminationGracePeriodSeconds": 0}
        made = {"metadata": {"name": "late", "labels": {LABEL: "r1"}}, "spec": spec}
        client.create(pod, {"apiVersion": "v1", "kind": "Pod", **made})
        (tmp_path / "agent").mkdir()
        (tmp_path / "agent/kubeconfig").write_text(plane.nodes.text)
        announce(Cluster(Config(home=tmp_path)))
        until(lambda: not any(plane.put("node1").values()), 60, lambda: str(plane.put("node1")))
        until(lambda: plane.left("node2") == KEPT, 60, "an agent doesn't say that it stays")
        assert {name for name, found in plane.put("node2").items() if found} == names["node2"]
        client.remove(f"{pod}/late")
        until(lambda: not any(plane.put("node2").values()), 90, lambda: str(plane.put("node2")))
    plane.helm("uninstall", "plane", "--timeout", "3m")
    for place in ("node1", "node2"):
        assert plane.chain(place) == plane.before[place]
        assert "cytoplane" not in plane.nodes.ran(place, "ls", "/opt/cni/bin").stdout.split()
        assert not any(plane.put(place).values()), "it isn't put back on the way"
