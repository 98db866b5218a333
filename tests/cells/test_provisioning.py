"""Cells' places on Kubernetes through the real tasks, against a real API server."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from django.db import connection
from django.utils import timezone

from cells.provisioning import actions, work
from cells.provisioning.models import Place
from cells.provisioning.tasks import reconcile, sweep
from controlplane import crypto
from controlplane.errors import CytoplaneError
from dataplane.drivers.kubernetes.api import Api
from dataplane.planes import kubernetes, pods, snapshots
from dataplane.planes.models import Plane
from delivery import actions as actions_of_delivery
from delivery import machine
from delivery.models import Replica
from projects import actions as projects
from projects.models import Cell
from tenants import keys
from tenants.models import AuditEvent
from tests import factories
from tests.cluster import LONGEST, Cluster, cluster  # noqa: F401  a fixture
from tests.factories import World
from tests.queue import Queue

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(LONGEST)]
ROOT = Path(__file__).resolve().parents[2]
POLICIES = "networking.k8s.io/v1"
POLICY_NAMES = {"deny-ingress", "deny-egress", "platform"}


@pytest.fixture
def world(committed_world: World, cluster: Cluster) -> World:
    """Two tenants, and a cluster that is a plane."""
    kubernetes.create_plane(acting_user=committed_world.root, name="cluster", kubeconfig=cluster.text)
    return committed_world


def bind(world: World, plane: str = "cluster", environment: str = "production") -> None:
    actions.bind_environment(acting_user=world.root, tenant="acme", environment=environment, plane=plane)


def only() -> Place:
    return Place.objects.get()


def due(place: Place) -> None:
    """Let the time of the next look come, and a dead worker's lease end."""
    past = timezone.now() - timedelta(seconds=1)
    Place.objects.filter(pk=place.pk).update(next_at=past)
    Place.objects.filter(pk=place.pk).exclude(lease_until=None).update(lease_until=past)


def swept(queue: Queue, place: Place) -> None:
    due(place)
    sweep.run()
    queue.run()


def refused(code: str, call, *arguments, **more) -> CytoplaneError:  # type: ignore[no-untyped-def]
    with pytest.raises(CytoplaneError) as caught:
        call(*arguments, **more)
    assert caught.value.code == code
    return caught.value


def test_a_plane_keeps_its_kubeconfig_sealed_and_says_who_added_it(
    world: World,
    cluster: Cluster,
) -> None:
    plane = Plane.objects.get(name="cluster")
    assert plane.kubeconfig is not None
    assert b"PRIVATE KEY" not in bytes(plane.kubeconfig)
    assert cluster.server.address.encode() not in bytes(plane.kubeconfig)
    event = AuditEvent.objects.get(verb="plane.create")
    assert (event.actor, event.object_name) == ("admin@example.org", "cluster")
    assert "client-key" not in str(event.changes)
    # Copied to another row it opens nothing.
    other = Plane.objects.create(name="other", engine="kubernetes", kubeconfig=plane.kubeconfig)
    with pytest.raises(kubernetes.Denied):
        kubernetes.driver_of(other)


def test_what_cant_be_used_makes_no_plane(world: World, cluster: Cluster) -> None:
    nobody = cluster.server.kubeconfig("nobody", ("nothing",))
    nowhere = cluster.text.replace(cluster.server.address, "https://127.0.0.1:9")
    root = world.root
    refused("cluster-refused", kubernetes.create_plane, acting_user=root, name="x", kubeconfig=nobody)
    refused("cluster-unreachable", kubernetes.create_plane, acting_user=root, name="x", kubeconfig=nowhere)
    refused("invalid", kubernetes.create_plane, acting_user=root, name="x", kubeconfig="kind: Config")
    refused("name-taken", kubernetes.create_plane, acting_user=root, name="cluster", kubeconfig=cluster.text)
    owner = world.actor("owner")
    refused("not-found", kubernetes.create_plane, acting_user=owner, name="x", kubeconfig=cluster.text)
    for actor, code in ((world.actor("developer"), "forbidden"), (world.actor(tenant="globex"), "not-found")):
        refused(code, actions.bind_environment, acting_user=actor, tenant="acme", environment="production",
                plane="cluster")  # fmt: skip
    assert not Plane.objects.filter(name="x").exists()


def test_cells_get_their_namespace_with_their_plans_quota(
    world: World,
    cluster: Cluster,
    queue: Queue,
) -> None:
    before = world.project("before")
    bind(world)
    after = world.project("after")
    assert Place.objects.filter(state="pending", cell__environment__name="production").count() == 2
    queue.run()
    for project in (before, after):
        place = Place.objects.get(cell__project=project)
        assert (place.state, place.problems, place.revision, place.lease) == ("ready", [], 1, "")
        namespace = cluster.namespace(place.location)
        assert namespace is not None
        assert namespace["metadata"]["labels"]["cytoplane.dev/project"] == project.slug
        hard = cluster.objects("ResourceQuota", place.location)["plan"]["spec"]["hard"]
        assert hard["pods"] == str(2 * world.plan.replicas)
        assert set(cluster.objects("NetworkPolicy", place.location, POLICIES)) == POLICY_NAMES
    event = AuditEvent.objects.get(verb="environment.bind")
    assert event.changes == {"plane": ["shared", "cluster"]}
    # Once more changes nothing, and the queue carried ids only.
    reconcile.run(place.pk)
    assert Place.objects.get(pk=place.pk).revision == 1


def test_another_plan_is_another_quota(world: World, cluster: Cluster, queue: Queue) -> None:
    bind(world)
    world.project()
    queue.run()
    world.plan.replicas = 45
    world.plan.save()
    swept(queue, only())
    assert (only().state, only().revision) == ("ready", 2)
    assert cluster.objects("ResourceQuota", only().location)["plan"]["spec"]["hard"]["pods"] == "90"


def test_a_destroyed_project_leaves_nothing_on_the_plane(
    world: World,
    cluster: Cluster,
    queue: Queue,
) -> None:
    bind(world)
    project = world.project()
    queue.run()
    location = only().location
    projects.destroy_project(acting_user=world.actor("owner"), project=project, confirm="shop")
    assert (only().wanted, only().state, only().cell_id) == (False, "removing", None)
    end = time.monotonic() + 60
    while Place.objects.exists() and time.monotonic() < end:
        swept(queue, only())
        time.sleep(0.3)
    assert not Place.objects.exists()
    assert cluster.namespace(location) is None


def test_an_environment_that_is_bound_elsewhere_takes_its_cells_along(
    world: World,
    cluster: Cluster,
    queue: Queue,
) -> None:
    bind(world)
    world.project()
    queue.run()
    first = only()
    bind(world, "shared")
    assert not Place.objects.get(pk=first.pk).wanted
    # And back, before anything went: another place, the old one still goes.
    bind(world)
    assert Place.objects.filter(wanted=True).exclude(location=first.location).count() == 1


def test_drift_is_repaired_by_the_sweep(world: World, cluster: Cluster, queue: Queue) -> None:
    bind(world)
    world.project()
    queue.run()
    with cluster.api() as api:
        api.delete(POLICIES, "NetworkPolicy", only().location, "deny-ingress")
    swept(queue, only())
    assert only().state == "ready"
    assert "deny-ingress" in cluster.objects("NetworkPolicy", only().location, POLICIES)


def test_new_credentials_let_what_failed_go_on(world: World, cluster: Cluster, queue: Queue) -> None:
    bind(world)
    plane = Plane.objects.get(name="cluster")
    kept = bytes(plane.kubeconfig or b"")
    weak = kubernetes.Kubeconfig.parse(cluster.server.kubeconfig("nobody", ("nothing",)))
    kubernetes._keep(plane, weak)
    world.project()
    queue.run()
    assert (only().state, only().error_code) == ("failed", "denied")
    api = factories.Api(factories.bearer(world.admin))
    bad = api("PUT", "/planes/cluster/kubeconfig", {"kubeconfig": weak.as_yaml()})
    assert (bad.status_code, bad.json()["error"]["id"]) == (422, "cluster-refused")
    good = api("PUT", "/planes/cluster/kubeconfig", {"kubeconfig": cluster.text})
    assert good.status_code == 200
    assert "kubeconfig" not in good.json()
    sweep.run()
    queue.run()
    assert (only().state, only().problems) == ("ready", [])
    assert bytes(Plane.objects.get(name="cluster").kubeconfig or b"") != kept
    assert AuditEvent.objects.filter(verb="plane.kubeconfig").count() == 1


def test_a_cluster_that_is_away_is_waited_for(world: World, cluster: Cluster, queue: Queue) -> None:
    bind(world)
    world.project()
    cluster.server.pause()
    try:
        queue.run()
        place = only()
        assert (place.state, place.error_code, place.attempts) == ("failed", "unreachable", 1)
        assert "doesn't answer" in place.problems[0]
        assert timezone.now() < place.next_at < timezone.now() + timedelta(seconds=30)
        assert place.lease_until is None
    finally:
        cluster.server.resume()
    swept(queue, place)
    assert (only().state, only().problems, only().error_code, only().attempts) == ("ready", [], "", 0)


def test_a_strangers_namespace_is_told_and_not_touched(
    world: World,
    cluster: Cluster,
    queue: Queue,
) -> None:
    bind(world)
    world.project()
    with cluster.api() as api:
        api.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": only().location}})
    queue.run()
    assert (only().state, only().error_code) == ("failed", "taken")
    assert not cluster.objects("NetworkPolicy", only().location, POLICIES)


def test_two_workers_are_never_in_one_place(world: World, queue: Queue) -> None:
    bind(world)
    world.project()
    held = work.claim(only().pk)
    assert held is not None
    assert work.claim(only().pk) is None
    queue.run()
    assert (only().state, only().lease) == ("pending", held.lease)
    sweep.run()
    assert not queue.waiting("provisioning.reconcile"), "the sweep leaves alone what somebody works on"
    swept(queue, held)
    assert only().state == "ready"


_WORKER = """
import sys
import django
django.setup()
from cells.provisioning.tasks import reconcile
print("go", flush=True)
reconcile.run(int(sys.argv[1]))
"""


@pytest.mark.parametrize("kind", ["Namespace", "NetworkPolicy"])
def test_a_killed_workers_place_is_taken_over(
    world: World,
    cluster: Cluster,
    queue: Queue,
    kind: str,
) -> None:
    bind(world)
    world.project()
    queue.clear()
    place = only()
    if kind == "Namespace":
        killed(place, lambda api: api.get("v1", kind, "", place.location))
    else:
        killed(place, lambda api: api.get(POLICIES, kind, place.location, "deny-egress"))
    sweep.run()
    assert not queue.waiting("provisioning.reconcile")
    swept(queue, place)
    assert (only().state, only().problems) == ("ready", [])
    assert set(cluster.objects("NetworkPolicy", place.location, POLICIES)) == POLICY_NAMES


def killed(place: Place, seen: Callable[[Api], object]) -> None:
    """A worker that begins with the place and is killed as soon as something of it is seen."""
    environment = {
        **os.environ,
        "CYTOPLANE_DATABASE": connection.settings_dict["NAME"],
        "DJANGO_SETTINGS_MODULE": "controlplane.settings",
        "PYTHONPATH": f"{ROOT}:{ROOT / 'platform'}",
    }
    worker = subprocess.Popen(
        [sys.executable, "-c", _WORKER, str(place.pk)],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert worker.stdout is not None
    assert worker.stdout.readline() == "go\n"
    end = time.monotonic() + 60
    sealed = bytes(place.plane.kubeconfig or b"")
    text = crypto.unwrap(keys.masters(), sealed, kubernetes._context(place.plane)).decode()
    with Api(kubernetes.Kubeconfig.parse(text)) as api:
        while worker.poll() is None and time.monotonic() < end and not seen(api):
            pass
    assert worker.poll() is None, "it was to be killed in the middle"
    worker.send_signal(signal.SIGKILL)
    worker.wait()
    assert only().lease, "nobody gave it back"


def test_a_place_given_up_while_it_is_made_goes(world: World, cluster: Cluster) -> None:
    bind(world)
    project = world.project()
    place = work.claim(only().pk)
    assert place is not None
    projects.destroy_project(acting_user=world.actor("owner"), project=project, confirm="shop")
    status = kubernetes.driver_of(place.plane).ensure(work.placed(place))
    assert work._done(place, status), "it has to be looked at again at once"
    assert (only().wanted, only().state, only().lease) == (False, "removing", "")
    reconcile.run(place.pk)
    namespace = cluster.namespace(place.location)
    assert namespace is None or namespace["metadata"].get("deletionTimestamp")


def test_a_deployment_there_makes_its_deployments_and_takes_them_away(
    world: World, cluster: Cluster, queue: Queue
) -> None:
    bind(world)
    cell = world.cell()
    queue.run()
    plane = Plane.objects.get(name="cluster")
    factories.acknowledge(plane)
    deployment = world.push(cell)
    machine.advance(deployment.pk)
    factories.built(deployment)
    assert machine.advance(deployment.pk) == "starting"
    queue.run()
    location = only().location
    replicas = {f"r{pk}" for pk in Replica.objects.values_list("pk", flat=True)}
    assert set(cluster.objects("Deployment", location, "apps/v1")) == replicas
    secrets = cluster.objects("Secret", location)
    assert {f"env-{name}" for name in replicas} < set(secrets)
    assert only().state == "ready", only().problems
    # What desired state says of them names the place and nothing that could pull.
    for entry in snapshots.whole(plane.pk)["endpoints"]:
        assert entry["pod"]["namespace"] == location
        assert entry["pod"]["pull"] == hashlib.sha256(pods.token(location).encode()).hexdigest()
    actions_of_delivery.cancel(acting_user=world.actor("developer"), deployment=deployment)
    queue.run()
    deployment.refresh_from_db()
    assert deployment.state == "cancelled"
    assert cluster.objects("Deployment", location, "apps/v1") == {}
    assert not [name for name in cluster.objects("Secret", location) if name.startswith("env-")]


def test_what_changes_while_a_worker_is_at_it_isnt_lost(world: World, cluster: Cluster, queue: Queue) -> None:
    bind(world)
    cell = world.cell()
    queue.run()
    held = work.claim(only().pk)
    assert held is not None
    actions.changed(cell)
    queue.run()
    assert only().lease == held.lease, "the other one leaves it alone"
    assert work._done(held, kubernetes.driver_of(held.plane).status(work.placed(held))), "and it looks again"
    assert only().next_at <= timezone.now()


def test_a_worker_killed_with_replicas_half_made_is_followed_by_the_next(
    world: World, cluster: Cluster, queue: Queue
) -> None:
    bind(world)
    cell = world.cell()
    queue.run()
    factories.acknowledge(Plane.objects.get(name="cluster"))
    deployment = world.push(cell)
    machine.advance(deployment.pk)
    factories.built(deployment)
    assert machine.advance(deployment.pk) == "starting"
    queue.clear()
    place = only()
    killed(place, lambda api: api.list("apps/v1", "Deployment", place.location))
    # What it was to start isn't wanted any more: nobody has written down that it exists.
    actions_of_delivery.cancel(acting_user=world.actor("developer"), deployment=deployment)
    queue.run()
    swept(queue, place)
    assert (only().state, only().problems) == ("ready", [])
    assert cluster.objects("Deployment", place.location, "apps/v1") == {}
    assert not [name for name in cluster.objects("Secret", place.location) if name.startswith("env-")]


def test_cells_that_run_cant_be_moved(world: World) -> None:
    world.deploy(world.cell())
    error = refused("conflict", actions.bind_environment, acting_user=world.root, tenant="acme",
                    environment="production", plane="cluster")  # fmt: skip
    assert "production" in error.message
    assert Cell.objects.get(environment__name="production").environment.plane.name == "shared"
    assert not Place.objects.exists()


def test_a_private_planes_owner_alone_is_bound_to_it(world: World, cluster: Cluster) -> None:
    kubernetes.create_plane(acting_user=world.root, name="own", kubeconfig=cluster.text, owner="globex")
    refused("not-found", actions.bind_environment, acting_user=world.root, tenant="acme",
            environment="production", plane="own")  # fmt: skip


def test_the_api_shows_places_and_binds(world: World, cluster: Cluster, queue: Queue) -> None:
    api = factories.Api(factories.bearer(world.admin))
    world.project()
    body = {"name": "second", "kubeconfig": cluster.text, "owner": "acme"}
    answer = api.post("/planes", body)
    assert answer.status_code == 200
    assert (answer.json()["owner"], answer.json()["engine"]) == ("acme", "kubernetes")
    assert answer.json()["version"].startswith("v1.")
    assert "kubeconfig" not in answer.json()
    answer = api("PUT", "/tenants/acme/environments/production/plane", {"plane": "second"})
    assert answer.json() == {"environment": "production", "plane": "second"}
    queue.run()
    places = api.get("/planes/second/places").json()
    assert [(p["tenant"], p["project"], p["state"]) for p in places] == [("acme", "shop", "ready")]
