"""Pages that list things ask the database as often for many of them as for few."""

from __future__ import annotations

from django.db import connection
from django.test.utils import CaptureQueriesContext

from tests.factories import World
from tests.web.routes import browser


def count(client, path: str) -> int:  # type: ignore[no-untyped-def]
    with CaptureQueriesContext(
        connection,
    ) as captured:
        assert client.get(path).status_code == 200
    return len(captured)


def test_a_tenants_home_costs_the_same_with_many_projects(world: World) -> None:
    world.plan.projects = world.plan.components = world.plan.replicas = 1000
    world.plan.memory_mib = world.plan.cpu = 10**6
    world.plan.save()
    client = browser(world, "viewer")
    for number in range(2):
        world.deploy(world.cell(world.project(f"first-{number}")), HOSTLESS)
    client.get("/acme")
    few = count(client, "/acme")
    for number in range(20):
        project = world.project(f"more-{number}")
        if number < 4:
            world.deploy(world.cell(project), HOSTLESS)
    assert count(client, "/acme") == few
    assert few < 25


def test_the_list_of_tenants_costs_the_same_with_many(world: World) -> None:
    client = browser(world, "platform")
    client.get("/admin")
    few = count(client, "/admin")
    for number in range(20):
        world.tenant(f"tenant-{number}")
    assert count(client, "/admin") == few


HOSTLESS = """
components:
  work: {kind: worker, command: run}
"""
