"""Releases are immutable: going back, once more, and what a change of configuration makes."""

from __future__ import annotations

import json

import pytest
from cryptography.exceptions import InvalidTag

from controlplane.errors import CytoplaneError
from delivery import actions, environment, machine
from delivery.models import Build, Deployment, Release
from projects import actions as projects
from projects.models import Cell, Host, Workload
from tenants.keys import Box
from tenants.models import AuditEvent
from tests import factories
from tests.factories import World

ONE = "components: {web: {kind: web, command: one}}"
OTHER = "components: {web: {kind: web, command: other, replicas: 2}, task: {kind: worker, command: t}}"


def opened(release: Release) -> dict:
    """The release's configuration in clear."""
    box = Box(release.cell.project.tenant_id)
    return json.loads(box.unseal(release.configuration, environment.purpose(release)))


def configure(world: World, cell: Cell, **values: str) -> Release:
    projects.set_variables(acting_user=world.actor(), cell=cell, set=values)
    return world.finish(Deployment.objects.filter(cell=cell).order_by("-pk")[0])


def test_rolling_back_makes_a_new_release_equal_to_the_old_in_code_and_configuration(world: World) -> None:
    cell = world.cell()
    projects.set_variables(acting_user=world.actor(), cell=cell, set={"A": "1"}, secrets={"S": "old"})
    old = world.deploy(cell, ONE, "a" * 40)
    projects.set_variables(acting_user=world.actor(), cell=cell, set={"B": "2"}, secrets={"S": "new"})
    world.finish(Deployment.objects.get(kind="config"))
    world.deploy(cell, OTHER, "b" * 40)
    deployment = actions.rollback(acting_user=world.actor("developer"), cell=cell, number=old.number)
    again = world.finish(deployment)
    assert again.number == 4
    assert again.rolled_back_from == old
    for name in ("commit", "images", "specification", "variable_names"):
        assert getattr(again, name) == getattr(old, name), name
    assert opened(again) == opened(old) == {"": {"A": "1", "S": "old"}}
    assert environment.of_release(again)["web"]["S"] == "old"
    # Nothing about the old ones was rewritten, and its sealed bytes don't open as another's.
    assert opened(Release.objects.get(pk=old.pk)) == opened(old)
    with pytest.raises(InvalidTag):
        Box(cell.project.tenant_id).unseal(old.configuration, environment.purpose(again))
    cell.refresh_from_db()
    assert cell.serving_release == again


def test_promoting_brings_the_same_images_with_the_configuration_of_where_they_go(world: World) -> None:
    staging = world.cell(environment="staging")
    production = world.cell(staging.project, "production")
    projects.set_variables(acting_user=world.actor(), cell=staging, set={"LEVEL": "low"})
    projects.set_variables(acting_user=world.actor(), cell=production, set={"LEVEL": "high"})
    source = world.deploy(staging, ONE, "a" * 40)
    developer = world.actor("developer")
    deployment = actions.promote(acting_user=developer, cell=staging, number=source.number, to="production")
    assert (deployment.kind, deployment.cell) == ("promotion", production)
    assert not Build.objects.filter(deployment=deployment).exists(), "nothing is built"
    promoted = world.finish(deployment)
    assert (promoted.cell, promoted.number, promoted.promoted_from) == (production, 1, source)
    assert (promoted.images, promoted.specification, promoted.commit) == (
        source.images,
        source.specification,
        source.commit,
    )
    assert environment.of_release(promoted)["web"]["LEVEL"] == "high"
    hosts = set(Host.objects.filter(cell=production).values_list("name", flat=True))
    assert hosts
    assert not hosts & set(Host.objects.filter(cell=staging).values_list("name", flat=True))
    event = AuditEvent.objects.get(verb="release.promote")
    assert event.changes == {"from": "v1 of staging"}


@pytest.mark.parametrize(
    ("number", "to", "code"),
    [(1, "staging", "conflict"), (2, "production", "not-found"), (1, "nowhere", "not-found")],
)
def test_only_a_release_can_be_promoted_and_only_elsewhere(
    world: World, number: int, to: str, code: str
) -> None:
    cell = world.cell(environment="staging")
    world.deploy(cell, ONE)
    with pytest.raises(CytoplaneError) as caught:
        actions.promote(acting_user=world.actor(), cell=cell, number=number, to=to)
    assert caught.value.code == code
    assert not Release.objects.exclude(cell=cell).exists()


@pytest.mark.parametrize(("number", "code"), [(2, "conflict"), (7, "not-found"), (0, "not-found")])
def test_only_another_existing_release_can_be_gone_back_to(world: World, number: int, code: str) -> None:
    cell = world.cell()
    world.deploy(cell, ONE)
    world.deploy(cell, ONE)
    with pytest.raises(CytoplaneError) as caught:
        actions.rollback(acting_user=world.actor(), cell=cell, number=number)
    assert caught.value.code == code


def test_release_numbers_have_no_gaps_in_each_cell(world: World) -> None:
    project = world.project()
    for environment_name in ("production", "staging"):
        cell = world.cell(project, environment_name)
        for _ in range(2):
            world.deploy(cell, ONE)
        configure(world, cell, A="1")
        assert sorted(r.number for r in Release.objects.filter(cell=cell)) == [1, 2, 3]


def test_a_change_of_configuration_is_a_release_of_the_same_code(world: World) -> None:
    cell = world.cell()
    first = world.deploy(cell, ONE)
    second = configure(world, cell, GREETING="hello")
    assert (second.images, second.specification, second.commit) == (
        first.images,
        first.specification,
        first.commit,
    )
    assert second.variable_names == ["GREETING"]
    assert "hello" not in json.dumps(second.images) + json.dumps(second.specification)
    assert environment.of_release(second)["web"]["GREETING"] == "hello"


def test_the_same_value_again_changes_nothing(world: World) -> None:
    cell = world.cell()
    world.deploy(cell, ONE)
    configure(world, cell, GREETING="hello")
    assert not projects.set_variables(acting_user=world.actor(), cell=cell, set={"GREETING": "hello"})
    assert not projects.set_variables(acting_user=world.actor(), cell=cell, unset=["OTHER"])
    assert Release.objects.count() == 2


def test_retry_takes_the_same_release_or_the_same_source(world: World) -> None:
    cell = world.cell()
    failed = world.push(cell, "c" * 40)
    machine.advance(failed.pk)
    type(failed.build).objects.update(state="failed", result={"error": {}})
    machine.advance(failed.pk)
    failed.refresh_from_db()
    again = actions.retry(acting_user=world.actor("developer"), deployment=failed)
    assert (again.commit, again.build.archive) == ("c" * 40, factories.ARCHIVE)
    release = world.carry(again, ONE)
    assert release.commit == "c" * 40

    started = world.push(cell, "d" * 40)
    machine.advance(started.pk)
    factories.built(started, OTHER)
    machine.advance(started.pk)
    started.refresh_from_db()
    actions.cancel(acting_user=world.actor(), deployment=started)
    machine.advance(started.pk)
    started.refresh_from_db()
    once_more = actions.retry(acting_user=world.actor(), deployment=started)
    assert once_more.release == started.release
    assert world.finish(once_more) == started.release


def test_retrying_an_old_change_of_scale_doesnt_bring_old_code_back(world: World) -> None:
    cell = world.cell()
    world.deploy(cell, ONE, "a" * 40)
    change = actions.scale(acting_user=world.actor(), cell=cell, numbers={"web": 2})
    actions.cancel(acting_user=world.actor(), deployment=change)
    machine.advance(change.pk)
    world.deploy(cell, ONE, "b" * 40)
    change.refresh_from_db()
    again = actions.retry(acting_user=world.actor(), deployment=change)
    assert world.finish(again).commit == "b" * 40


@pytest.mark.parametrize("state", ["queued", "building", "starting", "switching", "live", "superseded"])
def test_only_what_failed_or_was_cancelled_is_retried(world: World, state: str) -> None:
    deployment = world.push(world.cell())
    Deployment.objects.filter(pk=deployment.pk).update(state=state)
    deployment.refresh_from_db()
    with pytest.raises(CytoplaneError) as caught:
        actions.retry(acting_user=world.actor(), deployment=deployment)
    assert caught.value.code == "conflict"


def test_a_source_that_isnt_kept_any_more_is_said(world: World) -> None:
    deployment = world.push(world.cell())
    Deployment.objects.filter(pk=deployment.pk).update(state="failed")
    type(deployment.build).objects.update(archive="")
    deployment.refresh_from_db()
    with pytest.raises(CytoplaneError) as caught:
        actions.retry(acting_user=world.actor(), deployment=deployment)
    assert "push again" in caught.value.message


# What processes get.


def test_a_process_gets_port_name_release_and_its_connections(world: World) -> None:
    cell = world.cell()
    release = world.deploy(cell)
    found = environment.of_release(release)
    assert found["api"] == {"CYTOPLANE_COMPONENT": "api", "CYTOPLANE_RELEASE": "v1", "PORT": "8080"}
    assert found["web"]["API_URL"] == "http://api.shop.cy.internal:8080"
    assert found["web"]["API_HOST"] == "api.shop.cy.internal"
    assert found["web"]["API_PORT"] == "8080"


def test_a_components_own_variable_beats_the_cells(world: World) -> None:
    cell = world.cell()
    world.deploy(cell)
    owner = world.actor()
    projects.set_variables(acting_user=owner, cell=cell, set={"LEVEL": "info", "ONLY": "all"})
    projects.set_variables(acting_user=owner, cell=cell, secrets={"LEVEL": "debug"}, component="api")
    release = world.finish(Deployment.objects.get(state="queued"))
    found = environment.of_release(release)
    assert (found["web"]["LEVEL"], found["api"]["LEVEL"]) == ("info", "debug")
    assert found["web"]["ONLY"] == found["api"]["ONLY"] == "all"


def test_a_connection_to_another_project_is_injected_as_that_serves(world: World) -> None:
    billing = world.cell(world.project("billing"))
    text = "components: {api: {kind: service, command: x, endpoints: {rpc: {port: 7000, protocol: grpc, visibility: tenant}}}}"
    world.deploy(billing, text)
    shop = world.cell()
    release = world.deploy(
        shop, "components: {web: {kind: web, command: x, connections: [{to: billing/api, as: BILL}]}}"
    )
    found = environment.of_release(release)["web"]
    assert found["BILL_URL"] == "http://api.billing.cy.internal:7000"


def test_a_connection_to_another_tenants_project_injects_nothing(world: World) -> None:
    world.deploy(world.cell(world.project("billing", "globex"), tenant="globex"))
    release = world.deploy(
        world.cell(), "components: {web: {kind: web, command: x, connections: [{to: billing/api}]}}"
    )
    assert not any(name.startswith("API_") for name in environment.of_release(release)["web"])


def test_a_name_of_dns_is_injected_as_it_is_and_numbered_without_a_door(world: World) -> None:
    external = (
        "{external: {host: api.example.com, port: 5432}, as: DB}, {external: {host: '*.example.com', port: 443}, as: W}, "
        "{external: {cidr: 203.0.113.0/24}, as: NET}"
    )
    release = world.deploy(
        world.cell(), f"components: {{web: {{kind: web, command: x, connections: [{external}]}}}}"
    )
    found = environment.of_release(release)["web"]
    injected = {name: value for name, value in found.items() if name.split("_")[0] in ("DB", "W", "NET")}
    assert injected == {"DB_HOST": "api.example.com", "DB_PORT": "5432"}
    workload = Workload.objects.get(cell=release.cell)
    assert workload.door_port is None
    assert workload.connections.count() == 3
