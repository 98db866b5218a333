"""Audit events are written with the change or not at all, and say who, what and by which request."""

from __future__ import annotations

import pytest
from django.db import connection, transaction

from controlplane.errors import CytoplaneError
from tenants import actions, audit
from tenants.models import AuditEvent, Tenant
from tests import factories
from tests.factories import World


def test_no_event_outside_the_transaction_of_its_change(transactional_db: None) -> None:
    world = World()
    assert not connection.in_atomic_block
    with pytest.raises(RuntimeError):
        audit.record(world.root, "x", world.acme, tenant=world.acme)


def test_an_event_is_undone_with_its_change(committed_world: World) -> None:
    before = AuditEvent.objects.count()
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        actions.create_tenant(acting_user=committed_world.root, slug="initech")
        assert AuditEvent.objects.count() == before + 1
        _ = 1 / 0
    assert AuditEvent.objects.count() == before
    assert not Tenant.objects.filter(slug="initech").exists()


def test_a_taken_name_leaves_nothing_behind(world: World) -> None:
    before = AuditEvent.objects.count()
    with pytest.raises(CytoplaneError) as caught:
        actions.create_tenant(acting_user=world.root, slug="acme")
    assert caught.value.code == "name-taken"
    assert AuditEvent.objects.count() == before
    assert Tenant.objects.count() == 2


def test_each_write_over_the_api_leaves_its_verb_and_the_request(world: World) -> None:
    owner = world.api("owner")
    person = factories.user("new@example.org")
    steps = [
        ("POST", "/tenants/acme/projects", {"slug": "shop"}, "project.create"),
        ("PATCH", "/tenants/acme/projects/shop", {"strict": True}, "project.strict"),
        ("PATCH", "/tenants/acme/projects/shop", {"strict": False}, "project.strict"),
        ("PATCH", "/tenants/acme/projects/shop", {"audit": True}, "project.audit"),
        ("PATCH", "/tenants/acme/projects/shop", {"audit": False}, "project.audit"),
        (
            "PATCH",
            "/tenants/acme/projects/shop/environments/staging/config",
            {"set": {"A": "1"}},
            "config.change",
        ),
        ("PUT", f"/tenants/acme/members/{person.email}", {"role": "viewer"}, "member.set"),
        ("DELETE", f"/tenants/acme/members/{person.email}", None, "member.remove"),
        ("POST", "/me/tokens", {"name": "ci", "scopes": ["read"], "tenant": "acme"}, "token.create"),
        ("DELETE", "/tenants/acme/projects/shop?confirm=shop", None, "project.destroy"),
    ]
    for method, path, body, verb in steps:
        answer = owner(method, path, body)
        assert answer.status_code == 200, answer.content
        event = AuditEvent.objects.order_by("-pk").first()
        assert event is not None
        assert (event.verb, event.tenant) == (verb, world.acme)
        assert event.request_id == answer["X-Request-Id"]
        assert event.actor.startswith(world.person("owner").email + " (token cy_")
    listed = owner.get("/tenants/acme/audit?limit=200").json()
    assert [e["verb"] for e in listed][: len(steps)] == [step[3] for step in steps][::-1]
    foreign = world.api("owner", "globex").get("/tenants/globex/audit?limit=200").json()
    assert {e["verb"] for e in foreign} == {"tenant.create"}


def test_the_installers_account_is_audited_without_an_actor(db: None) -> None:
    actions.create_user(acting_user=None, email="first@example.org", password=factories.PASSWORD, admin=True)
    event = AuditEvent.objects.get()
    assert (event.actor, event.verb, event.changes) == ("installer", "user.create", {"admin": True})
    assert factories.PASSWORD not in str(event.changes)


@pytest.mark.parametrize(
    ("email", "password", "code"),
    [
        ("not an address", factories.PASSWORD, "invalid"),
        ("x@example.org", "short", "invalid"),
        ("Admin@Example.org", factories.PASSWORD, "name-taken"),
    ],
)
def test_accounts_are_made_by_admins_with_checked_values(
    world: World, email: str, password: str, code: str
) -> None:
    with pytest.raises(CytoplaneError) as caught:
        actions.create_user(acting_user=world.root, email=email, password=password)
    assert caught.value.code == code
    with pytest.raises(CytoplaneError) as caught:
        actions.create_user(acting_user=world.actor("owner"), email=email, password=password)
    assert caught.value.code == "not-found"
