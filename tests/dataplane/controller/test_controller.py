"""A cluster of a tenant's own: joined with a token, driven by its controller, through the real listener."""

from __future__ import annotations

import base64
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cells.provisioning import actions as provisioning
from cells.provisioning.models import Place
from dataplane.client import ControlPlane
from dataplane.controller.identity import TOKEN
from dataplane.controller.lease import NAME as LEASE
from dataplane.planes import private, snapshots
from dataplane.planes.models import Node, Plane
from delivery import machine
from delivery.models import Replica
from infra.config import Config
from projects import actions as projects
from tests import factories
from tests.cluster import LONGEST, Cluster, cluster, until  # noqa: F401  a fixture
from tests.dataplane.listener import config  # noqa: F401  a fixture
from tests.factories import World

pytestmark = [pytest.mark.root, pytest.mark.cluster, pytest.mark.timeout(LONGEST)]
ROOT = Path(__file__).resolve().parents[3]
NAMESPACE, RELEASES = "cytoplane", "cytoplane-releases"


class Joined:
    """A private plane, its cluster, and controllers that can be started and killed."""

    def __init__(
        self, world: World, cluster: Cluster, config: Config, folder: Path, plane: Plane | None = None
    ) -> None:
        self.world, self.cluster, self.config, self._folder = world, cluster, config, folder
        self._running: dict[str, subprocess.Popen] = {}
        #: What controllers sign in to the cluster with.
        self.kubeconfig = cluster.text
        if plane is not None:
            self.plane = plane
            return
        invitation = private.create(
            acting_user=world.actor("owner"), name="own", engine="kubernetes", owner="acme"
        )
        self.plane = invitation.plane
        with cluster.api() as api:
            for name in (NAMESPACE, RELEASES):
                api.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
        self.lay(invitation.token)

    def lay(self, token: str) -> None:
        """Where the chart puts it."""
        data = {"token": base64.b64encode(token.encode()).decode()}
        metadata = {"name": TOKEN, "namespace": NAMESPACE}
        with self.cluster.api() as api:
            api.apply({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": data})

    def start(self, name: str) -> subprocess.Popen:
        """A controller in a pod of that name, with nothing on its disk."""
        home = self._folder / name
        shutil.rmtree(home, ignore_errors=True)
        (home / "controller").mkdir(parents=True)
        (home / "controller" / "kubeconfig").write_text(self.kubeconfig)
        environment = {
            **os.environ,
            "CYTOPLANE_HOME": str(home),
            "CYTOPLANE_NET": str(self.config.net),
            "CYTOPLANE_CONTROL_URL": self.config.control_plane,
            "POD_NAME": name,
            "PYTHONPATH": str(ROOT),
        }
        log = (self._folder / f"{name}.log").open("ab")
        command = ["setpriv", "--pdeathsig", "KILL", "--", sys.executable, "-m", "dataplane.controller"]
        self._running[name] = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log)
        return self._running[name]

    def log(self, name: str) -> str:
        return (self._folder / f"{name}.log").read_text()

    def stop(self) -> None:
        for process in self._running.values():
            process.kill()
            process.wait(30)
        with self.cluster.api() as api:
            for secret in self.cluster.objects("Secret", NAMESPACE):
                api.delete("v1", "Secret", NAMESPACE, secret)
            api.delete("v1", "Secret", RELEASES, "plane-controller")
            api.delete("coordination.k8s.io/v1", "Lease", NAMESPACE, LEASE)
            for node in api.list("v1", "Node", ""):
                # Those of a test; kubelets don't make their own anew.
                if not node["status"].get("nodeInfo", {}).get("kubeletVersion"):
                    api.delete("v1", "Node", "", node["metadata"]["name"])

    def controller(self) -> Node | None:
        return self.plane.nodes.filter(kind=Node.Kind.CONTROLLER, last_seen_at__isnull=False).first()

    def await_(self, ready, what: str, seconds: float = 40.0):  # type: ignore[no-untyped-def]
        logs = "\n".join(self.log(name)[-1500:] for name in self._running)
        return until(ready, seconds, f"{what}\n{logs}")


@pytest.fixture
def joined(
    committed_world: World,
    cluster: Cluster,
    config: Config,
    tmp_path: Path,
) -> Iterator[Joined]:
    made = Joined(committed_world, cluster, config, tmp_path)
    try:
        yield made
    finally:
        made.stop()


def bound(joined: Joined) -> Place:
    """A project of acme on its own plane."""
    provisioning.bind_environment(
        acting_user=joined.world.actor("owner"), tenant="acme", environment="production", plane="own"
    )
    joined.world.project("shop")
    snapshots.rebuild(joined.plane.pk)
    return Place.objects.get(plane=joined.plane)


def test_a_project_lives_and_ends_on_a_cluster_that_only_dials_out(joined: Joined) -> None:
    place = bound(joined)
    joined.start("one")
    joined.await_(lambda: joined.controller(), "the controller didn't join")
    assert TOKEN not in joined.cluster.objects("Secret", NAMESPACE), "the token is gone"
    joined.await_(lambda: joined.cluster.namespace(place.location), "the cell has no namespace")
    joined.await_(
        lambda: Place.objects.filter(pk=place.pk, state=Place.State.READY, checked_at__isnull=False).exists(),
        "the place isn't reported",
    )
    joined.world.agent(joined.plane)
    # A deployment: replicas become Deployments, with their variables beside them.
    cell = joined.world.cell(joined.world.acme.projects.get())
    projects.set_variables(acting_user=joined.world.actor("owner"), cell=cell, secrets={"KEY": "hunter2"})
    deployment = joined.world.push(cell)
    machine.advance(deployment.pk)
    factories.built(deployment)
    machine.advance(deployment.pk)
    machine.advance(deployment.pk)
    names = {f"r{pk}" for pk in Replica.objects.values_list("pk", flat=True)}
    assert names
    joined.await_(
        lambda: names <= joined.cluster.objects("Deployment", place.location, "apps/v1").keys(),
        "replicas aren't there",
    )
    secret = joined.cluster.objects("Secret", place.location)[f"env-{min(names)}"]
    assert base64.b64decode(secret["data"]["KEY"]) == b"hunter2"
    projects.destroy_project(
        acting_user=joined.world.actor("owner"), project=joined.world.acme.projects.get(), confirm="shop"
    )
    joined.await_(lambda: not joined.cluster.namespace(place.location), "the namespace stays", 60)
    joined.await_(lambda: not Place.objects.filter(pk=place.pk).exists(), "the place is never forgotten", 30)


def test_killed_with_its_disk_it_comes_back_without_another_token(joined: Joined) -> None:
    process = joined.start("one")
    first = joined.await_(lambda: joined.controller(), "the controller didn't join")
    joined.await_(
        lambda: "plane-controller" in joined.cluster.objects("Secret", RELEASES), "its certificate isn't kept"
    )
    process.send_signal(signal.SIGKILL)
    process.wait(10)
    Node.objects.update(last_seen_at=None)
    joined.start("one")
    again = joined.await_(lambda: joined.controller(), "it didn't come back")
    assert again.pk == first.pk
    assert again.certificates.filter(revoked_at=None).count() == 1


def test_of_two_one_works_and_the_other_takes_over_when_it_ends(joined: Joined) -> None:
    first = joined.start("one")
    joined.await_(lambda: joined.controller(), "the controller didn't join")
    joined.start("two")

    def holder() -> str:
        with joined.cluster.api() as api:
            found = api.get("coordination.k8s.io/v1", "Lease", NAMESPACE, LEASE)
        return found["spec"]["holderIdentity"] if found else ""

    joined.await_(lambda: "the lease" in joined.log("two") or holder() == "one", "nobody holds the lease")
    time.sleep(6)
    assert holder() == "one", "the second one waits"
    first.send_signal(signal.SIGTERM)
    first.wait(60)
    joined.await_(lambda: holder() == "two", "the second one doesn't take over")
    Node.objects.update(last_seen_at=None)
    joined.await_(lambda: joined.controller(), "the second one isn't heard of")


def test_each_node_gets_a_token_that_lets_in_nobody_else(joined: Joined, tmp_path: Path) -> None:
    with joined.cluster.api() as api:
        for name in ("node-a", "node-b"):
            api.create({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}})
    joined.start("one")
    joined.await_(
        lambda: {"enrol-node-a", "enrol-node-b"} <= joined.cluster.objects("Secret", NAMESPACE).keys(),
        "no tokens for the nodes",
    )
    secrets = joined.cluster.objects("Secret", NAMESPACE)
    token = base64.b64decode(secrets["enrol-node-a"]["data"]["token"]).decode()
    agent = ControlPlane(tmp_path / "agent", joined.config.control_plane)
    (agent.folder / "enrolment").write_text(token)
    with pytest.raises(Exception, match="unknown, used or expired"):
        agent.enrol("node-b", {})
    agent.enrol("node-a", {})
    agent.post("/agent/report", {"node": {"healthy": True}})
    row = Node.objects.get(kind=Node.Kind.AGENT)
    assert (row.name, row.plane) == ("node-a", Plane.objects.get(name="own"))
    joined.await_(
        lambda: (
            joined.cluster.objects("Secret", NAMESPACE).keys() & {"enrol-node-a", "enrol-node-b"}
            == {"enrol-node-b"}
        ),
        "the token of a node that is heard of stays",
    )
