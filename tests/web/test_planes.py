"""A tenant's planes in the portal."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.sessions.models import Session
from django.test import Client
from django.utils import timezone

from dataplane.planes.models import Node, Plane
from projects.models import Environment
from tests import factories
from tests.factories import NodeClient, World

PAGE = "/acme/-/planes"


def owner(world: World, tenant: str = "acme") -> Client:
    client = factories.client()
    client.force_login(world.person("owner", tenant))
    return client


def text(client: Client) -> str:
    return client.get(PAGE).content.decode()


def test_a_command_is_shown_once_and_kept_nowhere(world: World) -> None:
    client = owner(world)
    shown = client.post(PAGE, {"name": "own", "engine": "machine"}).content.decode()
    token = re.search(r"cye_[A-Za-z0-9_-]+\.[0-9a-f]{64}", shown)
    assert token
    assert "cye_" not in text(client), "nor is it there again"
    assert not any("cye_" in str(session.get_decoded()) for session in Session.objects.all())
    assert "Nothing has joined it yet" in text(client)
    again = client.post(f"{PAGE}/token", {"plane": "own"}).content.decode()
    assert "cye_" in again
    assert token.group() not in again


def test_an_offline_plane_shows_since_when_and_that_it_goes_on(world: World) -> None:
    client = owner(world)
    plane = Plane.objects.create(name="own", engine="machine", owner=world.acme)
    NodeClient.enrolled(Node.Kind.AGENT, plane, "node-1")
    Node.objects.update(last_seen_at=timezone.now(), health={"healthy": True})
    assert "offline since" not in text(client)
    Node.objects.update(last_seen_at=timezone.now() - timedelta(hours=2))
    shown = text(client)
    assert "offline since" in shown
    assert "goes on and is enforced" in shown


def test_environments_are_moved_and_told_what_to_do_while_it_is_offline(world: World) -> None:
    client = owner(world)
    Plane.objects.create(name="own", engine="machine", owner=world.acme)
    client.post(f"{PAGE}/environment", {"environment": "staging", "plane": "own"})
    client.post(f"{PAGE}/environment", {"environment": "staging", "offline": "wait"})
    row = Environment.objects.select_related("plane").get(tenant=world.acme, name="staging")
    assert row.plane is not None
    assert (row.plane.name, row.waits) == ("own", True)


def test_a_foreign_plane_isnt_there(world: World) -> None:
    Plane.objects.create(name="theirs", engine="machine", owner=world.globex)
    client = owner(world)
    assert "theirs" not in text(client)
    for address, form in (
        ("token", {"plane": "theirs"}),
        ("revoke", {"plane": "theirs", "confirm": "theirs"}),
        ("environment", {"environment": "staging", "plane": "theirs"}),
    ):
        assert client.post(f"{PAGE}/{address}", form).status_code == 404, address


def test_revoking_asks_for_the_name(world: World) -> None:
    client = owner(world)
    plane = Plane.objects.create(name="own", engine="machine", owner=world.acme)
    node = NodeClient.enrolled(Node.Kind.AGENT, plane, "node-1").node
    client.post(f"{PAGE}/revoke", {"plane": "own", "confirm": "other"})
    assert node.certificates.filter(revoked_at=None).exists()
    client.post(f"{PAGE}/revoke", {"plane": "own", "confirm": "own"})
    assert not node.certificates.filter(revoked_at=None).exists()


@pytest.mark.parametrize("said", [5, True, "broken", {"message": "broken"}, [[]], [{"message": []}], 0.5])
@pytest.mark.parametrize("where", ["problems", "versions", "counters", "facts", "edge", "health"])
def test_what_a_node_says_of_itself_takes_nobody_a_page(world: World, where: str, said: Any) -> None:
    plane = Plane.objects.create(name="own", engine="machine", owner=world.acme)
    NodeClient.enrolled(Node.Kind.AGENT, plane, "node-1")
    Environment.objects.filter(tenant=world.acme).update(plane=plane)
    Node.objects.update(last_seen_at=timezone.now(), health={where: said}, facts={"kernel": 1, where: said})
    admin = factories.client()
    admin.force_login(world.admin)
    for client, pages in ((admin, ("/admin/planes", "/admin/edge")), (owner(world), (PAGE, "/acme"))):
        for page in pages:
            assert client.get(page).status_code == 200, page
