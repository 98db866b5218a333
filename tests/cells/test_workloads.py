"""Deployments to a cluster whose pods really run: delivered by the real tasks, by Helm, onto two nodes.

Without the agent and its CNI plugin pods aren't isolated, which delivery doesn't depend on: a node's row
acknowledges in the agents' place.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import timedelta

import pytest
from django.utils import timezone

from cells.provisioning import actions
from cells.provisioning.models import Place
from cells.provisioning.tasks import sweep
from dataplane.drivers.kubernetes import Site
from dataplane.planes import kubernetes
from dataplane.planes.models import Plane
from delivery import machine
from delivery.models import Build, Deployment, LogChunk, Replica
from infra.cluster.images import BUSYBOX
from projects.models import Cell
from tests import factories
from tests.cluster import LONGEST, TwoNodes, two_nodes  # noqa: F401  a fixture
from tests.factories import World
from tests.queue import Queue

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(LONGEST)]

WEB = """
components:
  web:
    kind: web
    command: mkdir -p /tmp/www && echo $CYTOPLANE_COMPONENT $CYTOPLANE_RELEASE > /tmp/www/index.html && exec httpd -f -p $PORT -h /tmp/www
    replicas: {replicas}
    limits: {{memory: 32, cpu: 0.1}}
    health: {{type: http, path: {path}, grace: {grace}}}
"""


@pytest.fixture
def world(committed_world: World, two_nodes: TwoNodes, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:  # noqa: F811
    """Two tenants; acme's production is on the cluster, whose nodes hold the images already."""
    monkeypatch.setattr(kubernetes, "site_of", lambda plane: Site())
    root = committed_world.root
    kubernetes.create_plane(acting_user=root, name="cluster", kubeconfig=two_nodes.text)
    actions.bind_environment(acting_user=root, tenant="acme", environment="production", plane="cluster")
    yield committed_world
    with two_nodes.client() as client:
        for place in Place.objects.all():
            client.remove(f"/api/v1/namespaces/{place.location}")


class Delivery:
    """Workers and the agents' acknowledgement, at the test's word."""

    def __init__(self, world: World, queue: Queue, nodes: TwoNodes) -> None:
        self.world, self.queue, self.nodes = world, queue, nodes
        self.plane = Plane.objects.get(name="cluster")
        factories.acknowledge(self.plane)

    def push(self, cell: Cell, text: str, image: str = BUSYBOX) -> Deployment:
        deployment = self.world.push(cell)
        machine.advance(deployment.pk)
        factories.built(deployment, text)
        build = Build.objects.get(deployment=deployment)
        build.result["images"] = dict.fromkeys(build.result["images"], image)
        build.save()
        return deployment

    def until(self, deployment: Deployment, *states: str, seconds: float = 60) -> Deployment:
        """Let workers work until the deployment is in one of the states."""
        end = time.monotonic() + seconds
        while True:
            machine.advance(deployment.pk)
            deployment.refresh_from_db()
            if deployment.state in states:
                return deployment
            assert time.monotonic() < end, (
                self.pods(),
                deployment.state,
                deployment.error,
                list(Replica.objects.values_list("phase", "detail")),
                list(Place.objects.values_list("state", "problems")),
            )
            sweep.run()
            self.queue.run(most=200, later=True)
            if deployment.state == "switching":
                factories.acknowledge(self.plane)
            time.sleep(0.3)

    def pods(self) -> list[tuple[str, object]]:
        """What can be said of the pods, for whoever reads a failure."""
        found = []
        for place in Place.objects.filter(wanted=True):
            for name, pod in self.nodes.pods(place.location).items():
                found.append((self.nodes.log(place.location, name), pod["status"]))
        return found

    def swept(self) -> Place:
        past = timezone.now() - timedelta(seconds=1)
        Place.objects.update(next_at=past)
        sweep.run()
        self.queue.run(most=200, later=True)
        return Place.objects.get(cell__environment__name="production")


@pytest.fixture
def delivery(world: World, queue: Queue, two_nodes: TwoNodes) -> Delivery:  # noqa: F811
    return Delivery(world, queue, two_nodes)


def log_of(deployment: Deployment) -> str:
    return "".join(LogChunk.objects.filter(deployment=deployment).values_list("text", flat=True))


def web(replicas: int = 2, path: str = "/", grace: int = 60) -> str:
    return WEB.format(replicas=replicas, path=path, grace=grace)


def test_a_push_is_live_on_both_nodes(delivery: Delivery) -> None:
    cell = delivery.world.cell()
    begun = time.monotonic()
    deployment = delivery.until(delivery.push(cell, web()), "live", "failed")
    assert deployment.state == "live", (deployment.error, log_of(deployment))
    print(f"live after {time.monotonic() - begun:.1f} s")
    location = Place.objects.get(cell=cell).location
    pods = delivery.nodes.pods(location)
    assert {pod["spec"]["nodeName"] for pod in pods.values()} == {"node1", "node2"}
    for pod in pods.values():
        assert pod["spec"]["containers"][0]["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert pod["spec"]["securityContext"]["runAsUser"] == 1000
        answer = delivery.nodes.ran("node1", "curl", "-s", f"http://{pod['status']['podIP']}:8080/")
        assert answer.stdout == "web v1\n", answer.stderr
