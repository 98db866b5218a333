"""Parts die at every step of deployments to a cluster: what served serves, the new release comes whole, once.

The recorded steps are what a deployment, its place and its replicas were seen in. Agents stand apart here
(tests/dataplane/agent/pods/trials/test_faults.py), a plane's own controller too (tests/dataplane/controller).
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from django.db import connection
from django.utils import timezone

from cells.provisioning.models import Place
from cells.provisioning.tasks import sweep
from delivery import machine
from delivery.models import Deployment, LogChunk, Replica
from infra import supervisor
from projects.models import Cell
from tests import factories
from tests.cells.test_workloads import Delivery, delivery, names, page, rows, web, world  # noqa: F401  fixtures
from tests.cluster import LONGEST, TwoNodes, until

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(LONGEST)]
ROOT = Path(__file__).resolve().parents[2]
#: What a worker does, for one deployment, until it is killed.
_WORKER = """
import sys, time
import django
django.setup()
from cells.provisioning import tasks
from dataplane.drivers.kubernetes import Site
from dataplane.planes import kubernetes
from delivery import machine
# As in the fixture `world`: pods would be made anew for another site.
kubernetes.site_of = lambda plane: Site()
deployment, place = map(int, sys.argv[1:])
print("go", flush=True)
while True:
    machine.advance(deployment)
    tasks.reconcile.run(place)
    tasks.look.run(place)
    time.sleep(0.05)
"""
#: Kill → the parts of the cluster that die by it.
PARTS = {
    "API server": ["kube-apiserver"],
    "kubelets": ["node1-kubelet", "node2-kubelet"],
    "store, controllers and scheduler": ["etcd", "kube-controller-manager", "kube-scheduler"],
}


def step_of(deployment: Deployment) -> tuple[str, ...]:
    """Where a deployment is, as anybody could see it."""
    deployment.refresh_from_db()
    place = Place.objects.get(cell=deployment.cell)
    phases = Replica.objects.filter(release=deployment.release_id).values_list("phase", flat=True)
    return (deployment.state, place.state, *sorted(phases))


def killed(nodes: TwoNodes, parts: list[str]) -> None:
    """Those that run: who died just now is dead still."""
    pids = supervisor.pids(nodes.cluster)
    for part in parts:
        if pids.get(part):
            os.kill(pids[part], signal.SIGKILL)


def worker(deployment: Deployment, place: Place) -> subprocess.Popen:
    environment = {
        **os.environ,
        "CYTOPLANE_DATABASE": connection.settings_dict["NAME"],
        "DJANGO_SETTINGS_MODULE": "controlplane.settings",
        "PYTHONPATH": f"{ROOT}:{ROOT / 'platform'}",
    }
    command = ["setpriv", "--pdeathsig", "KILL", "--", sys.executable, "-c", _WORKER]
    process = subprocess.Popen(
        [*command, str(deployment.pk), str(place.pk)],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "go\n"
    return process


class Watched:
    """A deployment that is followed step by step, while the release before it has to serve."""

    def __init__(self, delivery: Delivery, cell: Cell) -> None:
        self.delivery, self.cell = delivery, cell
        serving = {f"r{pk}" for pk in Replica.objects.filter(wanted="serve").values_list("pk", flat=True)}
        self.before = {
            f"http://{pod['status']['podIP']}:8080/"
            for pod in self.pods().values()
            if pod["metadata"]["labels"]["cytoplane.dev/replica"] in serving
        }
        self.text = page(delivery, cell).pop()
        self.steps: list[tuple[str, ...]] = []
        # Time enough for all that dies: what is late is another test's subject.
        self.deployment = delivery.push(cell, web(replicas=1, grace=300))
        self._asked = 0.0

    def pods(self) -> dict[str, dict[str, Any]]:
        return self.delivery.nodes.pods(Place.objects.get(cell=self.cell).location)

    def follow(self, work: Callable[[], None], at_step: Callable[[], None]) -> Deployment:
        """Let ``work`` be done until the end; ``at_step`` is called at each step that wasn't seen before."""
        end = time.monotonic() + 600
        while True:
            step = step_of(self.deployment)
            if step not in self.steps:
                self.steps.append(step)
                if step[0] in Deployment.ENDED:
                    return self.deployment
                at_step()
            if time.monotonic() - self._asked > 0.5:
                self.serves()
            assert time.monotonic() < end, (self.steps, self.delivery.pods())
            work()
            if self.deployment.state == "switching":
                factories.acknowledge(self.delivery.plane)

    def serves(self) -> None:
        """Whoever calls the old replicas gets what he got before, until the others serve."""
        answers = [_answer(url) for url in self.before]
        self._asked = time.monotonic()
        # Workers go on meanwhile: what counts is where it is after the answer.
        if step_of(self.deployment)[0] in ("queued", "building", "starting"):
            assert answers == [self.text] * len(self.before), (self.steps, self.pods())

    def ended_well(self) -> None:
        delivery, cell, deployment = self.delivery, self.cell, self.deployment
        assert deployment.state == "live", (deployment.error, self.steps)
        assert {step[0] for step in self.steps} >= {"building", "starting", "switching", "draining"}
        assert [step.name for step in deployment.steps.all()] == ["build", "start", "switch", "drain"]
        text = "".join(LogChunk.objects.filter(deployment=deployment).values_list("text", flat=True))
        assert text.count("is live in") == 1
        delivery.queue.run(most=200, later=True)
        until(
            lambda: delivery.swept().state == "ready" and names(delivery, cell) == rows(cell),
            60,
            lambda: f"the place isn't as it should be: {names(delivery, cell)}, not {rows(cell)}",
        )
        assert page(delivery, cell) == {f"web v{deployment.release.number}\n"}


def _answer(url: str) -> str:
    try:
        return httpx.get(url, timeout=10, trust_env=False).text
    except httpx.HTTPError as error:
        return repr(error)


def in_process(watched: Watched) -> None:
    """Workers' part, by the test itself."""
    machine.advance(watched.deployment.pk)
    sweep.run()
    watched.delivery.queue.run(most=200, later=True)
    time.sleep(0.2)


@pytest.fixture
def served(delivery: Delivery) -> Cell:  # noqa: F811  a fixture
    """A cell with a release that serves."""
    cell = delivery.world.cell()
    assert delivery.until(delivery.push(cell, web(replicas=1)), "live", "failed").state == "live"
    return cell


def test_parts_of_the_cluster_die_at_every_step_and_the_release_comes_whole(
    delivery: Delivery,  # noqa: F811  a fixture
    served: Cell,
) -> None:
    for parts in PARTS.values():
        watched = Watched(delivery, served)
        watched.follow(partial(in_process, watched), partial(killed, delivery.nodes, parts))
        with delivery.nodes.client() as client:
            # Who died at the last step may be dead still.
            until(client.ready, 60, "the API doesn't come back")
        assert delivery.nodes.pods("default") == {}
        watched.ended_well()
        print(f"killed {parts} at {watched.steps}")


def test_a_worker_dies_at_every_step_and_the_next_one_goes_on(
    delivery: Delivery,  # noqa: F811  a fixture
    served: Cell,
) -> None:
    watched = Watched(delivery, served)
    place = Place.objects.get(cell=served)
    running: list[subprocess.Popen] = []

    def dies() -> None:
        """Killed in whatever it is doing, Helm with it; its lease ends as it would in a while."""
        for process in running:
            process.kill()
            process.wait()
        past = timezone.now() - timedelta(seconds=1)
        Place.objects.filter(pk=place.pk).exclude(lease_until=None).update(lease_until=past, next_at=past)

    def again() -> None:
        dies()
        running[:] = [worker(watched.deployment, place)]

    try:
        watched.follow(lambda: time.sleep(0.02), again)
    finally:
        dies()
    watched.ended_well()


def test_a_namespace_that_is_deleted_by_hand_comes_back_with_what_runs_in_it(
    delivery: Delivery,  # noqa: F811  a fixture
    served: Cell,
) -> None:
    before, location = rows(served), Place.objects.get(cell=served).location
    path = f"/api/v1/namespaces/{location}"
    with delivery.nodes.client() as client:
        uid = client.document(path)["metadata"]["uid"]
        client.remove(path)

        def anew() -> bool:
            delivery.swept()
            found = client.get(path)
            return found.status_code == 200 and found.json()["metadata"]["uid"] != uid

        until(anew, 120, "the namespace doesn't come back")

    def well() -> bool:
        return delivery.swept().state == "ready" and Replica.objects.get().phase == "healthy"

    until(well, 120, "its replica isn't well again")
    assert names(delivery, served) == rows(served) == before
    assert page(delivery, served) == {"web v1\n"}
