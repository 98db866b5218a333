"""Strictness and audit in the portal: set and ended by who may, written down, and never out of sight."""

from __future__ import annotations

import pytest
from django.test import Client

from projects.models import Project
from telemetry.actions import record_flows
from tenants.models import AuditEvent
from tests.factories import World
from tests.platform.telemetry.test_edges import STRICT, flow, identity
from tests.web.routes import browser

PAGES = (
    "",
    "/deployments",
    "/releases",
    "/configuration",
    "/logs",
    "/learning",
    "/settings",
    "/components/web",
)


@pytest.fixture
def client(world: World) -> Client:
    """acme's developer, whose shop serves."""
    world.deploy(world.cell(), STRICT)
    return browser(world, "developer")


def text(client: Client, path: str) -> str:
    answer = client.get(f"/acme/shop/production{path}")
    assert answer.status_code == 200
    return answer.content.decode()


@pytest.mark.parametrize("mode", ["strict", "audit"])
def test_a_mode_is_set_and_ended_and_both_are_written_down(client: Client, mode: str) -> None:
    path = f"/acme/shop/production/settings/{mode}"
    for body, wanted in (({mode: "on"}, True), ({}, False)):
        assert client.post(path, body).status_code == 302
        assert getattr(Project.objects.get(slug="shop"), mode) is wanted
        event = AuditEvent.objects.order_by("-pk").first()
        assert event is not None
        assert (event.verb, event.changes) == (f"project.{mode}", {mode: [not wanted, wanted]})


def test_audit_is_said_on_every_page_of_the_project_and_on_its_card(client: Client) -> None:
    for path in PAGES:
        assert "shop is in audit." not in text(client, path)
    client.post("/acme/shop/production/settings/audit", {"audit": "on"})
    for path in PAGES:
        assert "shop is in audit." in text(client, path), path
    assert "In audit" in client.get("/acme").content.decode()


def test_audited_calls_are_called_what_would_be_denied_and_taught(client: Client, world: World) -> None:
    cell = world.cell(Project.objects.get(slug="shop"))
    web, api = identity(cell, "web"), identity(cell, "api")
    record_flows(world.plane, [flow(web, api, "NO_RULE", allowed=True)])
    page = text(client, "?part=edges")
    assert 'class="audited"' in page
    assert "Would be denied" in page
    assert "audited" in text(client, "?part=picture")
    learned = text(client, "/learning")
    assert "{to: api.http}" in learned
    assert "Would be denied" in learned
    asked = client.get("/acme/-/why?cell=shop/production&source=web&destination=api")
    assert "The project is strict" in asked.content.decode()


def test_what_names_nothing_is_told_with_what_to_write_instead(client: Client) -> None:
    page = client.get("/acme/-/why?cell=shop/production&source=web&destination=nosuch").content.decode()
    assert "Components here are api, web" in page
