"""A run's cluster as a plane of the run's installation: shared and driven by workers, or private and joined
by the printed command alone. One after the other: nodes are of one plane at a time."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dataplane.drivers.kubernetes import helm
from infra import config as settings
from infra.cluster.images import load
from infra.cluster.settings import NODES
from infra.images import __main__ as images
from tests.cluster import TwoNodes, until
from tests.dataplane.internet import Internet, servers4
from tests.e2e.installation import REPOSITORY, Installation

CHART = REPOSITORY / "infra" / "charts" / "data-plane"
NAMESPACE, RECORDS = "cytoplane", "cytoplane-releases"
IMAGES = ["agent", "gateway", "resolver", "controller"]
_SECONDS = 180
#: Number of a capability.
_SYS_RESOURCE = 24


def _given(capability: int) -> bool:
    """Whether anything on this machine may have a capability."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return bool(int(status["CapBnd"], 16) >> capability & 1)


class ClusterPlane:
    """A plane on the cluster. ``join_shared`` or ``join_private`` makes it, ``leave`` takes it away."""

    def __init__(self, installation: Installation, nodes: TwoNodes, name: str, folder: Path) -> None:
        self.installation, self.nodes, self.name, self._folder = installation, nodes, name, folder
        self.net = installation.config.net

    @property
    def door(self) -> str:
        """Where the first node takes requests for applications."""
        return f"http://{self.nodes.cluster.node(NODES[0])[0].ip}:8080"

    @property
    def _settings(self) -> list[str]:
        """What an operator adds to the printed command for this cluster."""
        cluster = self.nodes.cluster
        networks = ",".join(map(str, (*cluster.all_pods, *cluster.services)))
        servers = self.installation.config.dns_servers
        found = [f"clusterNetworks={{{networks}}}", f"node.dnsServers={{{servers}}}", "node.commands=true"]
        # The development cluster's nodes have no more than this machine gives.
        return [*found, f"node.sysResource={str(_given(_SYS_RESOURCE)).lower()}"]

    def load_images(self, say: images.recipe.Say) -> None:
        """What the chart runs, onto both nodes; nothing is pulled from anywhere."""
        cache, target = settings.load().cache, self._folder / "images.tar"
        images.build(cache, say)
        images.archive(cache, target, IMAGES, images.version())
        load(self.nodes.cluster, target)
        target.unlink()

    def join_private(self, owner: str) -> None:
        """The owner makes the plane; the command that is printed is typed, with what a cluster's operator adds."""
        # Another number than the installation's, as a plane elsewhere may have.
        self.net = (self.net + 1) % 16
        document = {"name": self.name, "engine": "kubernetes", "owner": owner, "net": self.net}
        made = self.installation.api(owner).call("POST", "/planes", document)
        command = made["join"]["command"]
        line = f"{command} -s -- " + " ".join(f"--set '{setting}'" for setting in self._settings)
        environment = {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "HOME": str(self._folder),
            "KUBECONFIG": str(self.nodes.cluster.kubeconfig),
        }
        done = subprocess.run(
            ["sh", "-c", line], env=environment, cwd="/", capture_output=True, text=True, timeout=240
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert made["join"]["token"] not in done.stdout + done.stderr
        self._await_nodes()

    def join_shared(self) -> None:
        """An admin hands in a kubeconfig, installs the chart without a controller, brings the nodes' tokens."""
        admin = self.installation.api("admin")
        admin.call("POST", "/planes", {"name": self.name, "kubeconfig": self.nodes.text})
        self.helm(
            *("upgrade", "--install", "cytoplane", str(CHART), "--create-namespace"),
            *("--set", f"control.url={self.installation.config.agents_url}", "--set", f"net={self.net}"),
            *("--set", "controller.enabled=false"),
            *(word for setting in self._settings for word in ("--set", setting)),
        )
        with self.nodes.client() as client:
            for node in NODES:
                token = admin.call("POST", f"/planes/{self.name}/enrolment-tokens", {"kind": "agent"})
                secret = {
                    "apiVersion": "v1",
                    "kind": "Secret",
                    "metadata": {"name": f"enrol-node{node}", "namespace": NAMESPACE},
                    "stringData": {"token": token["token"]},
                }
                client.create(f"/api/v1/namespaces/{NAMESPACE}/secrets", secret)
        self._await_nodes()

    def helm(self, *words: str) -> None:
        where = ["--kubeconfig", str(self.nodes.cluster.kubeconfig), "--namespace", NAMESPACE]
        done = subprocess.run(
            [helm.executable(), *words, *where], capture_output=True, text=True, check=False, timeout=300
        )
        assert done.returncode == 0, done.stderr

    def seen(self) -> dict[str, Any]:
        """The plane as its people see it."""
        return self.installation.api("admin").call("GET", f"/planes/{self.name}")

    def _await_nodes(self) -> None:
        def well() -> bool:
            found = [node for node in self.seen()["nodes"] if node["healthy"] and node["online"]]
            return {node["name"] for node in found if node["kind"] == "agent"} == {f"node{n}" for n in NODES}

        until(well, _SECONDS, lambda: f"the nodes don't come: {self.seen()['nodes']}, {self.unready()}")
        # Ready is more than healthy: the chain has the plugin, the registry's proxy answers.
        until(lambda: not self.unready(), _SECONDS, lambda: f"not ready: {self.unready()}")

    def unready(self) -> list[str]:
        """Containers of the chart that aren't ready, with what is known of each."""
        return [
            f"{name}/{status['name']} {status.get('state')}"
            for name, pod in self.nodes.pods(NAMESPACE).items()
            for status in pod["status"].get("containerStatuses") or [{"name": "", "ready": False}]
            if not status["ready"]
        ]

    def controllers(self, number: int) -> None:
        """Let so many controllers run, and wait until it is so."""
        with self.nodes.client() as client:
            client.change(
                f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments/controller", {"spec": {"replicas": number}}
            )
        selector = "app.kubernetes.io/component=controller"
        until(lambda: len(self.nodes.pods(NAMESPACE, selector)) == number, _SECONDS, "controllers stay")

    @contextmanager
    def reaching(self, world: Internet) -> Iterator[None]:
        """The cluster has a way to a test's outer world and back."""
        cluster = self.nodes.cluster
        for network in (cluster.all_pods[0], cluster.control[0].network):
            world.returns(str(network))
        route = [f"{servers4(self.installation.config.net)[0]}/28", "via", str(cluster.link(1)[0].ip)]
        in_control = ["ip", "-n", cluster.netns("control").name, "route"]
        subprocess.run([*in_control, "replace", *route], check=True)
        try:
            yield
        finally:
            subprocess.run([*in_control, "del", *route], check=True)

    def places(self) -> list[dict[str, Any]]:
        """Of cells; none of a plane that there isn't."""
        path = f"/planes/{self.name}/places"
        return self.installation.api("admin").call("GET", path, fine=("not-found",)) or []

    def leave(self) -> None:
        """After the cells: the chart, what it kept in the cluster, and what its README says stays on nodes.

        Also after a plane that was only half joined.
        """
        until(lambda: not self.places(), 300, lambda: f"cells stay: {self.places()}")
        self.helm("uninstall", "cytoplane", "--ignore-not-found", "--timeout", "3m")
        with self.nodes.client() as client:
            for name in (NAMESPACE, RECORDS):
                client.remove(f"/api/v1/namespaces/{name}")
            for name in (NAMESPACE, RECORDS):
                path = f"/api/v1/namespaces/{name}"
                until(lambda path=path: client.get(path).status_code == 404, 300, f"{name} doesn't go")  # type: ignore[misc]
        for node in NODES:
            gone = ["rm", "-rf", "/var/lib/cytoplane", f"/sys/fs/bpf/cytoplane-{self.net}"]
            self.nodes.ran(f"node{node}", *gone)
