"""A controller that is killed at every step of a deployment, and one that was away for a month: nothing is lost,
nothing is half done. Pods are real, on two nodes; agents stand apart."""

from __future__ import annotations

import base64
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from django.utils import timezone

from cells.provisioning import actions as provisioning
from cells.provisioning.models import Place
from dataplane.controller.identity import SECRET
from dataplane.planes import snapshots
from dataplane.planes.models import Certificate, Node
from delivery import machine
from delivery.models import Build, Deployment, Replica
from infra.cluster.images import BUSYBOX
from infra.cluster.settings import NODES
from infra.config import Config
from projects import actions as projects
from projects.models import Cell
from tests import factories
from tests.cells.test_workload_faults import step_of
from tests.cells.test_workloads import pushed, web
from tests.cluster import LONGEST, Cluster, TwoNodes, until
from tests.dataplane.certificates import ended
from tests.dataplane.controller.test_controller import RELEASES, Joined
from tests.dataplane.listener import config  # noqa: F401  a fixture
from tests.factories import World

pytestmark = [pytest.mark.root, pytest.mark.cluster, pytest.mark.timeout(LONGEST)]


class Nodes(Cluster):
    """The cluster whose pods run, in the words of the one that has only an API server."""

    def __init__(self, nodes: TwoNodes) -> None:
        self.text = nodes.text


@pytest.fixture
def joined(
    committed_world: World,
    two_nodes: TwoNodes,
    unchained: None,
    config: Config,  # noqa: F811  a fixture
    tmp_path: Path,
) -> Iterator[Joined]:
    made = Joined(committed_world, Nodes(two_nodes), config, tmp_path)
    # What nodes would pull through their proxy.
    for node in NODES:
        tag = ["ctr", "-n", "k8s.io", "images", "tag", "--force", BUSYBOX]
        done = two_nodes.ran(f"node{node}", *tag, f"127.0.0.1:{config.registry_port}/{BUSYBOX}")
        assert done.returncode == 0, done.stderr
    provisioning.bind_environment(
        acting_user=committed_world.actor("owner"), tenant="acme", environment="production", plane="own"
    )
    try:
        yield made
    finally:
        made.stop()
        with two_nodes.client() as client:
            for place in Place.objects.all():
                client.remove(f"/api/v1/namespaces/{place.location}")


def build(joined: Joined, cell: Cell) -> Deployment:
    deployment = pushed(joined.world, cell)
    machine.advance(deployment.pk)
    factories.built(deployment, web(replicas=1, grace=300))
    made = Build.objects.get(deployment=deployment)
    made.result["images"] = dict.fromkeys(made.result["images"], BUSYBOX)
    made.save()
    return deployment


def answer(joined: Joined, location: str, replicas: set[str]) -> set[str]:
    """What the pods of these replicas say."""
    with joined.cluster.api() as api:
        pods = [
            pod
            for pod in api.list("v1", "Pod", location)
            if pod["metadata"]["labels"]["cytoplane.dev/replica"] in replicas
        ]
    urls = [f"http://{pod['status']['podIP']}:8080/" for pod in pods]
    return {httpx.get(url, timeout=10, trust_env=False).text for url in urls}


def test_killed_at_every_step_the_release_comes_whole_and_the_one_before_serves(joined: Joined) -> None:
    cell = joined.world.cell()
    place = Place.objects.get(cell=cell)
    running: list[subprocess.Popen] = []

    def again() -> None:
        """Killed with its disk, Helm with it; the same pod comes back."""
        for process in running:
            process.kill()
            process.wait()
        running[:] = [joined.start("one")]

    again()
    joined.await_(joined.controller, "the controller didn't join")
    agent = factories.acknowledge(joined.plane)
    numbers: list[tuple[str, ...]] = []
    for version in (1, 2):
        serving = {f"r{pk}" for pk in Replica.objects.values_list("pk", flat=True)}
        steps: list[tuple[str, ...]] = []
        deployment = build(joined, cell)

        def live(
            deployment: Deployment = deployment,
            steps: list[tuple[str, ...]] = steps,
            serving: set[str] = serving,
            version: int = version,
        ) -> bool:
            step = step_of(deployment)
            if step not in steps:
                steps.append(step)
                if step[0] not in Deployment.ENDED:
                    again()
            if serving and step[0] == "starting":
                assert answer(joined, place.location, serving) == {f"web v{version - 1}\n"}, steps
            Node.objects.filter(pk=agent.pk).update(last_seen_at=timezone.now())
            machine.advance(deployment.pk)
            if step[0] == "switching":
                factories.acknowledge(joined.plane)
            return step[0] in Deployment.ENDED

        joined.await_(live, f"it stays {steps}", 400)
        deployment.refresh_from_db()
        assert deployment.state == "live", (deployment.error, steps, joined.log("one")[-2000:])
        numbers += steps
        replicas = {f"r{pk}" for pk in Replica.objects.filter(wanted="serve").values_list("pk", flat=True)}
        joined.await_(
            lambda wanted=replicas: (
                joined.cluster.objects("Deployment", place.location, "apps/v1").keys() == wanted
            ),  # type: ignore[misc]
            "what isn't wanted stays, or what is isn't there",
            60,
        )
        assert answer(joined, place.location, replicas) == {f"web v{version}\n"}
    assert {step[0] for step in numbers} >= {"starting", "switching", "draining", "live"}
    assert Node.objects.filter(kind=Node.Kind.CONTROLLER).count() == 1
    print(f"killed at {numbers}")


def test_away_for_a_month_it_renews_its_certificate_and_catches_up(joined: Joined) -> None:
    """Its disk is gone as well: what the cluster kept of it has ended long ago, and still opens renewal."""
    gone = joined.world.cell(joined.world.project("old"))
    process = joined.start("one")
    joined.await_(joined.controller, "the controller didn't join")
    old = Place.objects.get(cell=gone)
    joined.await_(lambda: joined.cluster.namespace(old.location), "the cell has no namespace")
    joined.await_(lambda: SECRET in joined.cluster.objects("Secret", RELEASES), "its certificate isn't kept")
    process.kill()
    process.wait()
    with joined.cluster.api() as api:
        kept = api.get("v1", "Secret", RELEASES, SECRET)
        assert kept is not None
        certificate = ended(base64.b64decode(kept["data"]["client.key"]), 31)
        kept["data"]["client.cert"] = base64.b64encode(certificate.encode()).decode()
        api.merge("v1", "Secret", RELEASES, SECRET, {"data": kept["data"]})
    Node.objects.update(last_seen_at=None)
    # Meanwhile: one project ends, another begins.
    owner = joined.world.actor("owner")
    projects.destroy_project(acting_user=owner, project=gone.project, confirm="old")
    fresh = Place.objects.get(cell=joined.world.cell(joined.world.project("fresh")))
    snapshots.rebuild(joined.plane.pk)
    joined.start("one")
    joined.await_(joined.controller, "it isn't let in again", 60)
    joined.await_(lambda: joined.cluster.namespace(fresh.location), "it doesn't catch up")
    joined.await_(lambda: not joined.cluster.namespace(old.location), "what ended meanwhile stays", 90)
    until(lambda: not Place.objects.filter(pk=old.pk).exists(), 30, "the place is never forgotten")
    # The one that ended opens nothing more; the one that it has now is kept in the cluster.
    data = joined.cluster.objects("Secret", RELEASES)[SECRET]["data"]
    assert base64.b64decode(data["client.cert"]).decode() != certificate
    assert Certificate.objects.filter(revoked_at=None).count() >= 1
