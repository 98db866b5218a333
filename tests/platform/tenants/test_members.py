"""Members: who may make whom what, and that a tenant is never left without an owner."""

from __future__ import annotations

import threading

import pytest
from django.db import connections

from controlplane.errors import CytoplaneError
from tenants import actions, tokens
from tenants.models import AuditEvent, Membership, Role
from tests import factories
from tests.factories import World


def code_of(function, **arguments) -> str:  # type: ignore[no-untyped-def]
    try:
        function(**arguments)
    except CytoplaneError as error:
        return error.code
    return "ok"


def role_of(world: World, email: str) -> str | None:
    row = Membership.objects.filter(tenant=world.acme, user__email=email).first()
    return row.role if row else None


def test_an_admin_manages_members_but_not_owners(world: World) -> None:
    newcomer = factories.user("new@example.org")
    admin = world.actor("admin")
    for role in ("viewer", "developer", "admin"):
        actions.set_member(acting_user=admin, tenant=world.acme, email="New@Example.org ", role=role)
        assert role_of(world, newcomer.email) == role
    assert (
        code_of(actions.set_member, acting_user=admin, tenant=world.acme, email=newcomer.email, role="owner")
        == "forbidden"
    )
    owner = world.person("owner").email
    for role in ("viewer", "owner"):
        found = code_of(actions.set_member, acting_user=admin, tenant=world.acme, email=owner, role=role)
        assert found == "forbidden"
    assert code_of(actions.remove_member, acting_user=admin, tenant=world.acme, email=owner) == "forbidden"
    assert role_of(world, owner) == "owner"


def test_the_last_owner_can_neither_leave_nor_step_down(world: World) -> None:
    owner, email = world.actor("owner"), world.person("owner").email
    assert code_of(actions.remove_member, acting_user=owner, tenant=world.acme, email=email) == "last-owner"
    for role in ("admin", "developer", "viewer"):
        found = code_of(actions.set_member, acting_user=owner, tenant=world.acme, email=email, role=role)
        assert found == "last-owner"
    second = world.person("admin").email
    actions.set_member(acting_user=owner, tenant=world.acme, email=second, role="owner")
    actions.remove_member(acting_user=owner, tenant=world.acme, email=email)
    assert role_of(world, email) is None


def test_two_owners_who_leave_at_once_leave_one(committed_world: World) -> None:
    world = committed_world
    one, other = world.person("owner"), world.person("admin")
    actions.set_member(acting_user=world.actor("owner"), tenant=world.acme, email=other.email, role="owner")
    barrier, results = threading.Barrier(2), []

    def leave(person) -> None:  # type: ignore[no-untyped-def]
        try:
            acting = factories.actor(person)
            barrier.wait(10)
            results.append(
                code_of(actions.remove_member, acting_user=acting, tenant=world.acme, email=person.email)
            )
        finally:
            connections.close_all()

    threads = [threading.Thread(target=leave, args=(person,)) for person in (one, other)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(results) == ["last-owner", "ok"]
    assert Membership.objects.filter(tenant=world.acme, role=Role.OWNER).count() == 1


def test_a_member_who_leaves_loses_the_tokens_for_this_tenant_only(world: World) -> None:
    person = world.person("developer")
    _, narrow = tokens.issue(person, name="n", scopes=["read"], days=1, tenant=world.acme)
    _, wide = tokens.issue(person, name="w", scopes=["read"], days=1)
    actions.remove_member(acting_user=world.actor("owner"), tenant=world.acme, email=person.email)
    with pytest.raises(CytoplaneError):
        tokens.resolve(narrow)
    assert factories.actor_for(tokens.resolve(wide).user).role(world.acme.pk) is None


@pytest.mark.parametrize(
    ("email", "role", "code"),
    [
        ("nobody@example.org", "viewer", "not-found"),
        ("developer@acme.example.org", "emperor", "invalid"),
    ],
)
def test_unknown_people_and_roles_are_refused(world: World, email: str, role: str, code: str) -> None:
    acting = world.actor("owner")
    assert code_of(actions.set_member, acting_user=acting, tenant=world.acme, email=email, role=role) == code


def test_a_refused_change_leaves_no_audit_event(world: World) -> None:
    before = AuditEvent.objects.count()
    email = world.person("owner").email
    owner = world.actor("owner")
    assert code_of(actions.remove_member, acting_user=owner, tenant=world.acme, email=email) == "last-owner"
    assert AuditEvent.objects.count() == before
