"""A Kubernetes plane without a control plane: two real nodes, a real agent on each, pods that are replicas.

The fixture is ``pod_plane`` of fixtures.py; conformance uses it too. Desired state is a topology that is compiled as the
control plane does it, and handed to both agents.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from cells.boundary import Topology, compile_topology
from dataplane import addresses
from dataplane.agent.namespaces import run_in
from dataplane.agent.pods.cluster import LABEL as PLACEMENTS
from dataplane.agent.pods.cluster import NAMESPACE
from dataplane.agent.pods.verify import LABEL
from dataplane.cni import build, chain
from infra.cluster.enter import holder
from infra.cluster.images import BUSYBOX, cluster_environment
from infra.cluster.settings import NODES
from infra.config import Config
from infra.kubernetes import binaries
from tests.cluster import TwoNodes, until
from tests.dataplane.agent.pods.node import HOME, Agent
from tests.dataplane.agent.pods.shapes import confined
from tests.dataplane.agent.pods.talk import Kept, Server

_ASKING = Path(__file__).with_name("asking.py")


@dataclass(frozen=True)
class Found:
    """A pod that nobody here made a replica of."""

    node: int
    netns: str
    addresses: tuple[str, ...]


def _own_addresses() -> set[str]:
    done = subprocess.run(["ip", "-j", "address"], capture_output=True, text=True, check=True)
    return {entry["local"] for link in json.loads(done.stdout) for entry in link.get("addr_info", [])}


class PodPlane:
    """Two nodes with agents. ``config`` has the ranges of the platform's addresses there."""

    def __init__(self, two_nodes: TwoNodes) -> None:
        self.two_nodes, self.cluster = two_nodes, two_nodes.cluster
        self.config = Config(home=HOME, net=self.cluster.number, engine="kubernetes")
        self.server = Server()
        self.agents = {node: Agent(self.cluster, node) for node in NODES}
        self.generation = 0
        self.namespaces: list[str] = []

    # Setting up.
    def home(self, node: int) -> Path:
        """A node's state directory, as the machine sees it."""
        return self.agents[node].home

    def inside(self, node: int, path: str | Path) -> Path:
        """A path of a node, as the machine sees it."""
        return Path(f"/proc/{holder(self.cluster, f'node{node}')}/root") / Path(path).relative_to("/")

    def start(self) -> None:
        networks = [*self.cluster.all_pods, *self.cluster.services]
        plugin = build.build(binaries.cache().parent)
        for node in NODES:
            home = self.home(node)
            shutil.rmtree(home, ignore_errors=True)
            for folder in ("agent", "gateway", "resolver", "run"):
                (home / folder).mkdir(parents=True)
            (home / "config.toml").write_text(
                f'engine = "kubernetes"\nnet = {self.config.net}\nnode_name = "node{node}"\n'
                f'cluster_networks = "{",".join(map(str, networks))}"\n'
            )
            (home / "agent/kubeconfig").write_text(self.two_nodes.text)
        with self.two_nodes.client() as client:
            client.create("/api/v1/namespaces", {"metadata": {"name": NAMESPACE}})
        for agent in self.agents.values():
            agent.start()
        for node, agent in self.agents.items():
            agent.await_ready()
            build.put(plugin, self.inside(node, "/opt/cni/bin"))
            chain.install(self.inside(node, "/etc/cni/net.d"), HOME / "run/cni.sock")
        self.server = Server()
        self.server.start()

    def stop(self) -> None:
        self.server.close()
        for agent in self.agents.values():
            agent.kill()
        with self.two_nodes.client() as client:
            for name in self.namespaces:
                client.remove(f"/api/v1/namespaces/{name}")
        self.namespaces.clear()
        for node in NODES:
            chain.remove(self.inside(node, "/etc/cni/net.d"))
            # Without pins it is gone for whoever comes next.
            self.two_nodes.ran(f"node{node}", "rm", "-rf", f"/sys/fs/bpf/cytoplane-{self.config.net}")

    # Desired state.
    def apply(self, topology: Topology, endpoints: Sequence[dict[str, Any]], **more: Any) -> None:
        """Hand a topology, compiled, to both agents; ``endpoints`` are made by ``endpoint``."""
        from cells.boundary.encoding import encode

        self.hand_out(encode(compile_topology(topology)), endpoints, **more)

    def hand_out(self, boundary: dict[str, Any], endpoints: Sequence[dict[str, Any]], **more: Any) -> None:
        """The same with a boundary in the form that nodes read."""
        self.generation += 1
        document = {
            "plane": 1,
            "generation": self.generation,
            "endpoints": list(endpoints),
            "boundary": boundary,
            **more,
        }
        for node, agent in self.agents.items():
            (self.home(node) / "document.json").write_text(json.dumps(document))
            if agent.process is not None:
                assert agent.order(f"apply {HOME}/document.json") == "accepted"

    def endpoint(
        self, replica: str, index: int, identity: int, namespace: str, **process: Any
    ) -> dict[str, Any]:
        """An entry of desired state; ``index`` gives its symbolic addresses."""
        pair = addresses.workload(self.config, index)
        probe = {"type": "none", "port": 0, "path": "/", "interval": 1, "timeout": 1, "grace": 30}
        return {
            "id": replica,
            "number": index,
            "identity": identity,
            "cell": 7,
            "v4": pair.v4,
            "v6": pair.v6,
            "translate": True,
            "state": "run",
            "process": {"image": BUSYBOX, "command": None, "stop_grace": 1, "probe": probe, **process},
            "labels": {},
            "pod": {"namespace": namespace},
        }

    # Pods.
    def namespace(self, name: str) -> str:
        """A namespace in which pods can be made."""
        with self.two_nodes.client() as client:
            client.create("/api/v1/namespaces", {"metadata": {"name": name}})
            account = f"/api/v1/namespaces/{name}/serviceaccounts/default"
            until(lambda: client.get(account).json().get("secrets"), 30, "the namespace has no account")
        self.namespaces.append(name)
        return name

    def forget(self, *names: str) -> None:
        """Namespaces with all their pods go."""
        with self.two_nodes.client() as client:
            for name in names:
                self.namespaces.remove(name)
                client.remove(f"/api/v1/namespaces/{name}")
            for name in names:
                path = f"/api/v1/namespaces/{name}"
                until(
                    lambda path=path: client.get(path).status_code == 404,  # type: ignore[misc]
                    120,
                    f"the namespace {name} doesn't go",
                )

    def create(self, namespace: str, replica: str, node: int, *, name: str = "", **spec: Any) -> str:
        """A pod that says it is a replica; its name."""
        name = name or replica
        container = {"name": "app", "image": BUSYBOX, "command": ["sleep", "100000"]}
        whole: dict[str, Any] = {
            "containers": [container],
            "nodeName": f"node{node}",
            "restartPolicy": "Always",
            "terminationGracePeriodSeconds": 0,
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            **spec,
        }
        metadata = {"name": name, "labels": {LABEL: replica} if replica else {}}
        with self.two_nodes.client() as client:
            path = f"/api/v1/namespaces/{namespace}/pods"
            made = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": confined(whole)}
            client.create(path, made)
        return name

    def delete(self, namespace: str, name: str) -> None:
        with self.two_nodes.client() as client:
            client.remove(f"/api/v1/namespaces/{namespace}/pods/{name}")
            path = f"/api/v1/namespaces/{namespace}/pods/{name}"
            until(lambda: client.get(path).status_code == 404, 30, f"{name} doesn't go")

    def pod(self, namespace: str, name: str) -> dict[str, Any]:
        with self.two_nodes.client() as client:
            return client.document(f"/api/v1/namespaces/{namespace}/pods/{name}")

    def runs(self, namespace: str, name: str) -> bool:
        return self.pod(namespace, name)["status"].get("phase") == "Running"

    def await_running(self, namespace: str, *names: str, seconds: int = 60) -> None:
        for name in names:
            until(
                partial(self.runs, namespace, name),
                seconds,
                f"{name} doesn't run: {self.events(namespace, name)}",
            )

    def vacate(self, namespace: str) -> None:
        """Take away all pods of a namespace, and wait until their agents have noticed."""
        with self.two_nodes.client() as client:
            client.remove(f"/api/v1/namespaces/{namespace}/pods")
        until(
            lambda: (
                not any(
                    pod["namespace"] == namespace
                    for agent in self.agents.values()
                    for pod in agent.pods().values()
                )
            ),
            40,
            f"pods of {namespace} don't go",
        )

    def events(self, namespace: str, name: str) -> list[str]:
        """What the cluster says happened to a pod."""
        with self.two_nodes.client() as client:
            found = client.document(
                f"/api/v1/namespaces/{namespace}/events", fieldSelector=f"involvedObject.name={name}"
            )
        return [item.get("message", "") for item in found["items"]]

    def netns(self, node: int, replica: str) -> str:
        """Of a replica's pod, as the node sees it."""
        return self.agents[node].pods()[replica]["netns"]

    def serve(self, node: int, replica: str, tcp: Sequence[int] = (), udp: Sequence[int] = ()) -> None:
        """Let somebody answer in a replica's namespace, with the replica's name."""
        self.server.open(self.inside(node, self.netns(node, replica)), replica, tcp, udp)

    def found(self, namespace: str, name: str) -> Found:
        """A pod that isn't a replica, as its node's runtime has it."""
        pod = self.pod(namespace, name)
        node = int(pod["spec"]["nodeName"].removeprefix("node"))
        own = tuple(entry["ip"] for entry in pod["status"]["podIPs"])
        folder = self.inside(node, "/run/netns")
        for file in sorted(folder.glob("cni-*")):
            try:
                if own[0] in run_in(file, _own_addresses):
                    return Found(node, f"/run/netns/{file.name}", own)
            except OSError:
                continue
        raise AssertionError(f"{name} has no namespace")

    def connection(self, node: int, replica: str, target: tuple[str, int]) -> Kept:
        """A TCP connection out of a replica's namespace, which stays open."""
        return Kept(self.inside(node, self.netns(node, replica)), target)

    def resolver(self, node: int) -> contextlib.AbstractContextManager[None]:
        """The node's resolver, as long as it is needed."""
        return self._beside(node, "resolver", sys.executable, "-m", "dataplane.resolver")

    def gateway(self, node: int) -> contextlib.AbstractContextManager[None]:
        """The node's gateway, as long as it is needed."""
        envoy = [str(Path(sys.executable).with_name("envoy")), "-c", f"{HOME}/gateway/bootstrap.json"]
        envoy += ["--concurrency", "1", "--disable-hot-restart", "--log-level", "warning"]
        return self._beside(node, "gateway", *envoy, "--base-id", str(100 + 10 * self.config.net + node))

    @contextlib.contextmanager
    def _beside(self, node: int, name: str, *words: str) -> Iterator[None]:
        """A sibling of the agent, in the namespace that the agent made for it."""
        command = [sys.executable, "-m", "infra.cluster.enter", f"node{node}", "--"]
        command += ["nsenter", f"--net=/run/netns/{self.config.name}-{name}", "--", *words]
        environment = {**cluster_environment(self.cluster), "CYTOPLANE_HOME": str(HOME)}
        with (self.home(node) / f"{name}.log").open("a") as log:
            process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        try:
            yield
        finally:
            process.terminate()
            process.wait()

    def said(self) -> dict[str, dict[str, Any]]:
        """What each node's agent has published."""
        with self.two_nodes.client() as client:
            found = client.document(f"/api/v1/namespaces/{NAMESPACE}/configmaps", labelSelector=PLACEMENTS)
        documents = [json.loads(item["data"]["placements"]) for item in found["items"]]
        return {document["node"]: document for document in documents}

    def ask(self, node: int, netns: str, calls: Sequence[Sequence[Any]]) -> list[str]:
        """Who answers these calls out of a namespace of a node ("" for the node's own); see asking.py."""
        whole = [[*call, ""] if len(call) == 3 else list(call) for call in calls]
        enter = ["nsenter", f"--net={netns}", "--"] if netns else []
        command = [*enter, "/usr/bin/python3", "-I", "-S", str(_ASKING), json.dumps(whole)]
        done = self.two_nodes.ran(f"node{node}", *command)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def asked(self, node: int, replica: str, *calls: Sequence[Any]) -> list[str]:
        """Who answers these calls of a replica."""
        return self.ask(node, self.netns(node, replica), calls)

    def addresses(self, node: int, replica: str) -> tuple[str, str]:
        pod = self.agents[node].pods()[replica]
        return pod["v4"], pod["v6"]
