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
from delivery import actions as deliveries
from delivery import machine
from delivery.models import Build, Deployment, LogChunk, Push, Replica
from infra.cluster.images import BUSYBOX
from projects import actions as projects
from projects.models import Cell
from tests import factories
from tests.cluster import LONGEST, TwoNodes, until
from tests.factories import World
from tests.queue import Queue

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(LONGEST)]

#: It ends when it is told to: a process number 1 that doesn't catch the signal is left its whole grace.
WEB = """
components:
  web:
    kind: web
    command: mkdir -p /tmp/www && echo $CYTOPLANE_COMPONENT $CYTOPLANE_RELEASE > /tmp/www/index.html && trap exit TERM && {{ httpd -f -p $PORT -h /tmp/www & wait; }}
    replicas: {replicas}
    limits: {{memory: 32, cpu: 0.1}}
    health: {{type: http, path: {path}, grace: {grace}}}
"""


@pytest.fixture
def world(
    committed_world: World, two_nodes: TwoNodes, unchained: None, monkeypatch: pytest.MonkeyPatch
) -> Iterator[World]:
    """Two tenants; acme's production is on the cluster, whose nodes hold the images already."""
    monkeypatch.setattr(kubernetes, "site_of", lambda plane: Site())
    root = committed_world.root
    kubernetes.create_plane(acting_user=root, name="cluster", kubeconfig=two_nodes.text)
    actions.bind_environment(acting_user=root, tenant="acme", environment="production", plane="cluster")
    yield committed_world
    with two_nodes.client() as client:
        for place in Place.objects.all():
            client.remove(f"/api/v1/namespaces/{place.location}")


def pushed(world: World, cell: Cell) -> Deployment:
    """A push whose branch is where it belongs: nobody waits at its other end."""
    deployment = world.push(cell)
    Push.objects.filter(deployment=deployment).update(moved_by=Push.Mover.WORKER)
    return deployment


class Delivery:
    """Workers and the agents' acknowledgement, at the test's word."""

    def __init__(self, world: World, queue: Queue, nodes: TwoNodes) -> None:
        self.world, self.queue, self.nodes = world, queue, nodes
        self.plane = Plane.objects.get(name="cluster")
        factories.acknowledge(self.plane)

    def push(self, cell: Cell, text: str, image: str = BUSYBOX) -> Deployment:
        deployment = pushed(self.world, cell)
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
                # What goes with the old ones.
                self.queue.run(most=200, later=True)
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
        Place.objects.update(next_at=past, look_at=past)
        sweep.run()
        self.queue.run(most=200, later=True)
        return Place.objects.get(cell__environment__name="production")


@pytest.fixture
def delivery(world: World, queue: Queue, two_nodes: TwoNodes) -> Delivery:
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


def names(delivery: Delivery, cell: Cell) -> set[str]:
    """What runs of the cell on the cluster."""
    location = Place.objects.get(cell=cell, wanted=True).location
    with delivery.nodes.client() as client:
        found = client.document(f"/apis/apps/v1/namespaces/{location}/deployments")["items"]
    return {item["metadata"]["name"] for item in found}


def rows(cell: Cell) -> set[str]:
    return {f"r{pk}" for pk in Replica.objects.filter(workload__cell=cell).values_list("pk", flat=True)}


def lives(delivery: Delivery, cell: Cell) -> set[tuple[str, int]]:
    """Pods of the cell, and how often the process of each has begun anew."""
    location = Place.objects.get(cell=cell, wanted=True).location
    return {
        (pod["metadata"]["uid"], pod["status"]["containerStatuses"][0]["restartCount"])
        for pod in delivery.nodes.pods(location).values()
    }


def page(delivery: Delivery, cell: Cell) -> set[str]:
    """What the replicas of the serving release answer."""
    location = Place.objects.get(cell=cell, wanted=True).location
    serving = {f"r{pk}" for pk in Replica.objects.filter(wanted="serve").values_list("pk", flat=True)}
    answers = set()
    for pod in delivery.nodes.pods(location).values():
        if pod["metadata"]["labels"]["cytoplane.dev/replica"] in serving:
            address = pod["status"]["podIP"]
            answers.add(delivery.nodes.ran("node1", "curl", "-s", f"http://{address}:8080/").stdout)
    return answers


def test_a_release_from_a_machine_serves_here_and_everything_about_it_can_change(delivery: Delivery) -> None:
    """Promoted, scaled, configured, gone back, and a failure in between that changes nothing."""
    world, developer = delivery.world, delivery.world.actor("developer")
    staging = world.cell(environment="staging")
    production = world.cell(staging.project, "production")
    built = pushed(world, staging)
    machine.advance(built.pk)
    factories.built(built, web(replicas=1))
    build = Build.objects.get(deployment=built)
    build.result["images"] = {"web": BUSYBOX}
    build.save()
    source = world.finish(built)
    assert staging.environment.plane.engine == "machine"
    # Promotion.
    deployment = deliveries.promote(
        acting_user=developer, cell=staging, number=source.number, to="production"
    )
    delivery.until(deployment, "live")
    assert deployment.release is not None
    assert deployment.release.images == source.images
    assert page(delivery, production) == {"web v1\n"}
    # Another number of replicas: who is there already goes on.
    first = lives(delivery, production)
    delivery.until(deliveries.scale(acting_user=developer, cell=production, numbers={"web": 2}), "live")
    assert len(first) == 1 and first < lives(delivery, production)
    assert names(delivery, production) == rows(production)
    assert len(rows(production)) == 2
    # A variable: other replicas, the old ones go when the new ones serve.
    before = rows(production)
    projects.set_variables(acting_user=world.actor(), cell=production, set={"CYTO_WORD": "new"})
    delivery.until(Deployment.objects.get(kind="config"), "live")
    assert page(delivery, production) == {"web v2\n"}
    assert names(delivery, production) == rows(production)
    assert not rows(production) & before
    # A release that doesn't start: it says why, with its last lines, and what served still serves.
    serving = rows(production)
    failing = "components: {web: {kind: web, command: 'echo no such table; exit 3', replicas: 1}}"
    deployment = delivery.until(delivery.push(production, failing), "failed")
    assert deployment.error_code == "process-exited"
    assert "no such table" in log_of(deployment)
    assert deployment.still_serving == "v2"
    delivery.queue.run(most=200, later=True)
    assert names(delivery, production) == rows(production) == serving
    assert page(delivery, production) == {"web v2\n"}
    # Back to the first one.
    production.refresh_from_db()
    delivery.until(deliveries.rollback(acting_user=developer, cell=production, number=1), "live")
    assert page(delivery, production) == {"web v4\n"}
    # None at all.
    delivery.until(deliveries.scale(acting_user=developer, cell=production, numbers={"web": 0}), "live")
    delivery.queue.run(most=200, later=True)
    assert names(delivery, production) == set()
    # And the project ends with everything of it.
    location = Place.objects.get(cell=production).location
    projects.destroy_project(acting_user=world.actor(), project=production.project, confirm="shop")
    delivery.queue.run(most=200, later=True)
    with delivery.nodes.client() as client:
        until(
            lambda: client.get(f"/api/v1/namespaces/{location}").status_code == 404,
            180,
            "the namespace stays",
        )


def test_a_pod_that_is_deleted_and_a_deployment_that_is_edited_come_back(delivery: Delivery) -> None:
    cell = delivery.world.cell()
    delivery.until(delivery.push(cell, web(replicas=1)), "live")
    place = Place.objects.get(cell=cell)
    path = f"/apis/apps/v1/namespaces/{place.location}/deployments/{rows(cell).pop()}"
    with delivery.nodes.client() as client:
        client.change(path, {"spec": {"replicas": 0}})
        until(
            lambda: client.document(path).get("status", {}).get("readyReplicas", 0) == 0,
            30,
            "its pod doesn't go",
        )
        assert delivery.swept().state == "ready"
        until(
            lambda: client.document(path)["status"].get("readyReplicas") == 1, 60, "its pod doesn't come back"
        )
    until(
        lambda: delivery.swept() and Replica.objects.get().phase == "healthy",
        30,
        "it isn't seen that it is well",
    )
