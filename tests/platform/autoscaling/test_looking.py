"""Looks at components that follow load: what nodes report, and the deployments that come of it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from autoscaling import actions, load, queries
from autoscaling.models import Autoscaled
from controlplane.errors import CytoplaneError
from dataplane.planes.models import Node, Plane
from delivery import actions as delivery
from delivery import machine
from delivery.models import Deployment, Replica
from projects.models import Cell
from tenants.models import AuditEvent, Tenant
from tests import factories
from tests.factories import World

SCALED = """
components:
  web: {kind: web, command: serve, limits: {cpu: 0.5}, replicas: {min: 1, max: 6, cpu: 60}}
  api:
    kind: service
    command: serve
    endpoints: {http: {port: 8080, visibility: tenant}}
    replicas: {min: 1, max: 4, requests: 20}
  task: {kind: worker, command: work}
"""


def replicas(cell: Cell, component: str) -> list[Replica]:
    found = Replica.objects.filter(workload__cell=cell, workload__component__name=component, wanted="serve")
    return list(found.order_by("number"))


def report(world: World, cell: Cell, component: str, **figures: Any) -> None:
    """Every replica of a component, or those that ``only`` names, does the same."""
    only = figures.pop("only", None)
    reports = [{"id": f"r{r.pk}", **figures} for r in replicas(cell, component) if only in (None, r.number)]
    assert load.record(world.plane, reports) == len(reports)


def passed(seconds: float) -> None:
    """Everything that happened did so earlier."""
    for row in Autoscaled.objects.all():
        row.history = [[at - seconds, number, wanted] for at, number, wanted in row.history]
        row.looked_at = row.looked_at and row.looked_at - timedelta(seconds=seconds)
        row.save()
    for deployment in Deployment.objects.exclude(ended_at=None):
        deployment.ended_at = deployment.ended_at - timedelta(seconds=seconds)
        deployment.save(update_fields=["ended_at"])


def states(cell: Cell) -> dict[str, Any]:
    return queries.states(Cell.objects.select_related("serving_release").get(pk=cell.pk))


@pytest.fixture
def cell(world: World) -> Cell:
    made = world.cell()
    world.deploy(made, SCALED)
    made.refresh_from_db()
    return made


def test_load_above_the_target_adds_replicas_without_touching_those_that_are(
    world: World, cell: Cell
) -> None:
    (first,) = replicas(cell, "web")
    report(world, cell, "web", cpu=0.48)
    change = actions.look(cell.pk)
    assert change is not None
    assert (change.kind, change.created_by) == ("scale", "autoscaling")
    assert change.summary == "Scale web from 1 to 2: CPU 96 % of the limit, 60 wanted"
    assert change.release == cell.serving_release
    world.finish(change)
    assert [r.number for r in replicas(cell, "web")] == [1, 2]
    first.refresh_from_db()
    assert (first.wanted, first.restarts) == ("serve", 0)
    event = AuditEvent.objects.filter(verb="scale").latest("pk")
    assert (event.actor, event.tenant) == ("autoscaling", world.acme)
    assert event.changes == {
        "scale": [{}, {"web": 2}],
        "why": {"web": "1 to 2: CPU 96 % of the limit, 60 wanted"},
    }
    state = states(cell)["web"]
    assert state.change == "1 to 2: CPU 96 % of the limit, 60 wanted"
    assert state.changed_at is not None


def test_several_components_change_in_one_deployment(world: World, cell: Cell) -> None:
    report(world, cell, "web", cpu=0.5)
    report(world, cell, "api", requests=70.0)
    change = actions.look(cell.pk)
    assert change is not None
    world.finish(change)
    assert (len(replicas(cell, "web")), len(replicas(cell, "api"))) == (2, 2)
    assert Deployment.objects.filter(kind="scale").count() == 1


def test_five_quiet_minutes_take_replicas_away(world: World, cell: Cell) -> None:
    world.finish(delivery.scale(acting_user=world.actor(), cell=cell, numbers={"api": 3}))
    changes = []
    for _ in range(23):
        report(world, cell, "api", requests=11.0)
        changes.append(actions.look(cell.pk))
        passed(15)
    (change,) = [change for change in changes if change is not None]
    assert changes.index(change) >= 20
    assert change.summary == "Scale api from 3 to 2: requests 11 a second and replica, 20 wanted"
    world.finish(change)
    assert [r.number for r in replicas(cell, "api")] == [1, 2]


def test_of_those_that_arent_needed_who_isnt_well_goes_first(world: World, cell: Cell) -> None:
    world.finish(delivery.scale(acting_user=world.actor(), cell=cell, numbers={"api": 3}))
    change = delivery.scale(acting_user=world.actor(), cell=cell, numbers={"api": 2})
    Replica.objects.filter(workload__component__name="api", number=1).update(phase="unhealthy")
    machine.advance(change.pk)
    assert [r.number for r in replicas(cell, "api")] == [2, 3]


def test_what_isnt_reported_takes_nothing_away(world: World, cell: Cell) -> None:
    delivery.scale(acting_user=world.actor(), cell=cell, numbers={"api": 2})
    world.finish(Deployment.objects.get(kind="scale"))
    for _ in range(22):
        report(world, cell, "api", requests=0.0, only=1)
        assert actions.look(cell.pk) is None
        passed(15)
    assert states(cell)["api"].held == "nothing is known of 1 of 2 replicas"
    assert states(cell)["api"].figures["requests"] == 0.0


def test_a_replica_that_isnt_well_counts_as_unknown(world: World, cell: Cell) -> None:
    report(world, cell, "web", cpu=0.5)
    Replica.objects.filter(workload__component__name="web").update(phase="unhealthy")
    assert actions.look(cell.pk) is None
    assert states(cell)["web"].held == "nothing is known of 1 of 1 replicas"


def test_a_deployment_under_way_isnt_disturbed(world: World, cell: Cell) -> None:
    report(world, cell, "web", cpu=0.5)
    push = world.push(cell)
    machine.advance(push.pk)
    assert actions.look(cell.pk) is None
    assert states(cell)["web"].held == "a deployment is under way"
    assert not Deployment.objects.filter(kind="scale").exists()
    world.carry(push, SCALED)
    passed(15)
    report(world, cell, "web", cpu=0.5)
    assert actions.look(cell.pk) is not None


def test_the_next_release_begins_with_the_number_that_load_asked_for(world: World, cell: Cell) -> None:
    report(world, cell, "web", cpu=0.5)
    change = actions.look(cell.pk)
    assert change is not None
    world.finish(change)
    world.deploy(cell, SCALED)
    assert len(replicas(cell, "web")) == 2
    world.deploy(cell, SCALED.replace("max: 6, cpu", "max: 1, cpu"))
    assert len(replicas(cell, "web")) == 1
    world.deploy(cell, "components: {web: {kind: web, command: serve, replicas: 3}}")
    assert len(replicas(cell, "web")) == 3
    assert not Autoscaled.objects.exists()


def test_the_plan_allows_what_fits_and_the_rest_is_said(world: World, cell: Cell) -> None:
    world.plan.replicas = 4
    world.plan.save()
    report(world, cell, "web", cpu=0.5)
    change = actions.look(cell.pk)
    assert change is not None
    world.finish(change)
    passed(90)
    report(world, cell, "web", cpu=0.5)
    assert actions.look(cell.pk) is None
    state = states(cell)["web"]
    assert state.wanted == 4
    assert "acme" in state.held
    assert "replicas" in state.held
    world.plan.replicas = 5
    world.plan.save()
    passed(15)
    report(world, cell, "web", cpu=0.5)
    change = actions.look(cell.pk)
    assert change is not None
    assert change.summary.startswith("Scale web from 2 to 3")
    assert "replicas" in states(cell)["web"].held


def test_after_a_change_that_failed_nothing_is_tried_for_five_minutes(world: World, cell: Cell) -> None:
    report(world, cell, "web", cpu=0.5)
    change = actions.look(cell.pk)
    assert change is not None
    machine.advance(change.pk)
    Replica.objects.filter(wanted="run").update(phase="failed", detail={"exit_code": 1})
    machine.advance(change.pk)
    change.refresh_from_db()
    assert change.state == "failed"
    passed(60)
    report(world, cell, "web", cpu=0.5)
    assert actions.look(cell.pk) is None
    assert states(cell)["web"].held.startswith("the last attempt came to nothing: ")
    cell.refresh_from_db()
    assert cell.scale["web"] == 1, "or the next push would start what can't start"
    passed(300)
    report(world, cell, "web", cpu=0.5)
    assert actions.look(cell.pk) is not None


def test_what_somebody_cancels_isnt_tried_again_at_once(world: World, cell: Cell) -> None:
    report(world, cell, "web", cpu=0.5)
    change = actions.look(cell.pk)
    assert change is not None
    delivery.cancel(acting_user=world.actor(), deployment=change)
    machine.advance(change.pk)
    passed(60)
    report(world, cell, "web", cpu=0.5)
    assert actions.look(cell.pk) is None
    assert "cancelled" in states(cell)["web"].held


def test_by_hand_only_within_the_range_and_until_the_next_decision(world: World, cell: Cell) -> None:
    for number in (0, 7):
        with pytest.raises(CytoplaneError) as caught:
            delivery.scale(acting_user=world.actor(), cell=cell, numbers={"web": number})
        assert caught.value.code == "scales-itself"
        assert "1 and 6" in caught.value.message
        assert "cytoplane.yaml" in caught.value.next
    world.finish(delivery.scale(acting_user=world.actor(), cell=cell, numbers={"web": 3}))
    report(world, cell, "web", cpu=0.01)
    assert actions.look(cell.pk) is None
    assert len(replicas(cell, "web")) == 3
    assert "five minutes" in states(cell)["web"].held


def test_nothing_is_decided_for_a_suspended_tenant(world: World, cell: Cell) -> None:
    report(world, cell, "web", cpu=0.5)
    Tenant.objects.filter(pk=world.acme.pk).update(state=Tenant.State.SUSPENDED)
    assert actions.look(cell.pk) is None
    assert states(cell)["web"].looked_at is None


def test_a_look_that_comes_twice_is_one(world: World, cell: Cell) -> None:
    report(world, cell, "web", cpu=0.2)
    actions.look(cell.pk)
    seen = states(cell)["web"].looked_at
    actions.look(cell.pk)
    assert states(cell)["web"].looked_at == seen
    assert len(Autoscaled.objects.get(workload__component__name="web").history) == 1


def test_a_clock_that_was_ahead_keeps_nothing_from_being_looked_at(world: World, cell: Cell) -> None:
    Autoscaled.objects.update(looked_at=timezone.now() + timedelta(hours=2))
    report(world, cell, "web", cpu=0.48)
    assert actions.look(cell.pk) is not None


def test_a_cell_that_is_gone_isnt_looked_at(world: World) -> None:
    assert actions.look(10**9) is None


# What nodes report.


def test_a_node_speaks_for_replicas_of_its_own_plane_only(world: World, cell: Cell) -> None:
    (mine,) = replicas(cell, "web")
    other = Plane.objects.create(name="other", engine=Plane.Engine.MACHINE)
    assert load.record(other, [{"id": f"r{mine.pk}", "cpu": 0.5}]) == 0
    assert load.of([mine.pk]) == {mine.pk: load.Figures()}
    node = world.agent()
    answer = node("POST", "/agent/report", {"load": [{"id": f"r{mine.pk}", "cpu": 0.25, "requests": 3}]})
    assert answer.status_code == 200
    assert load.of([mine.pk]) == {mine.pk: load.Figures(0.25, 3.0)}


def test_a_controller_has_no_load_to_report(world: World, cell: Cell) -> None:
    (mine,) = replicas(cell, "web")
    plane = Plane.objects.create(name="cluster", engine=Plane.Engine.KUBERNETES)
    Replica.objects.update(plane=plane)
    controller = factories.NodeClient.enrolled(Node.Kind.CONTROLLER, plane, "controller")
    assert controller("POST", "/agent/report", {"load": [{"id": f"r{mine.pk}", "cpu": 1}]}).status_code == 200
    assert load.of([mine.pk]) == {mine.pk: load.Figures()}


@pytest.mark.parametrize(
    ("said", "taken"),
    [
        (-1, None), (True, None), ("1", None), (None, None), ([1], None), (float("nan"), None),
        (float("inf"), None), (1e300, 1024.0), (0, 0.0),
    ],
)  # fmt: skip
def test_figures_are_cut_to_what_can_be(world: World, cell: Cell, said: Any, taken: float | None) -> None:
    (mine,) = replicas(cell, "web")
    load.record(world.plane, [{"id": f"r{mine.pk}", "cpu": said}])
    assert load.of([mine.pk])[mine.pk].cpu == taken


def test_what_was_said_a_while_ago_isnt_known_any_more(world: World, cell: Cell, installation: Any) -> None:
    report(world, cell, "web", cpu=0.5)
    client = installation.redis()
    (key,) = client.keys("cytoplane:load:*")
    assert 0 < client.ttl(key) <= load.FRESH
    client.delete(key)
    assert load.of([replicas(cell, "web")[0].pk]) != {}
    assert actions.look(cell.pk) is None


def test_more_cpu_than_the_limit_counts_as_the_limit(world: World, cell: Cell) -> None:
    report(world, cell, "web", cpu=1000.0)
    actions.look(cell.pk)
    assert states(cell)["web"].figures["cpu"] == 100.0
    assert Autoscaled.objects.get(workload__component__name="web").wanted == 2
    assert timezone.now() - states(cell)["web"].looked_at < timedelta(minutes=1)
