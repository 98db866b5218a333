"""Who may do what: roles × actions, scopes, states, as a table that is written here by hand."""

from __future__ import annotations

import pytest

from controlplane.errors import CytoplaneError
from tenants import actions, policy
from tenants.models import Role, Tenant
from tests import factories
from tests.factories import World

#: action → roles that may, scope that a token needs. O owner, A admin, D developer, V viewer.
TABLE = {
    "read": ("OADV", "read"),
    "read audit": ("OA", "read"),
    "push": ("OAD", "deploy"),
    "deploy": ("OAD", "deploy"),
    "configure": ("OAD", "deploy"),
    "scale": ("OAD", "deploy"),
    "run commands": ("OAD", "deploy"),
    "create project": ("OAD", "manage"),
    "destroy project": ("OA", "manage"),
    "manage environments": ("OA", "manage"),
    "manage members": ("OA", "manage"),
    "manage owners": ("O", "manage"),
    "manage planes": ("O", "manage"),
}
ROLES = {"O": "owner", "A": "admin", "D": "developer", "V": "viewer"}
SCOPES = ("read", "deploy", "manage")


def outcome(actor: policy.Actor, action: str, tenant: Tenant) -> str:
    """The error's id, or ``ok``."""
    try:
        policy.authorise(actor, action, tenant)
    except CytoplaneError as error:
        return error.code
    return "ok"


def test_the_table_holds_every_action_and_role() -> None:
    assert set(TABLE) == set(policy.ACTIONS)
    assert set(ROLES.values()) == set(Role.values)
    assert set(SCOPES) == set(policy.SCOPES)


def test_roles(world: World) -> None:
    for action, (letters, _) in TABLE.items():
        for letter, role in ROLES.items():
            wanted = "ok" if letter in letters else "forbidden"
            assert outcome(world.actor(role), action, world.acme) == wanted, (action, role)


def test_a_token_needs_the_scope_and_its_user_the_role(world: World) -> None:
    for action, (letters, needed) in TABLE.items():
        for letter, role in ROLES.items():
            for scope in SCOPES:
                actor = world.actor(role, scopes=[scope])
                wanted = "forbidden" if letter not in letters else "ok" if scope == needed else "token-scope"
                assert outcome(actor, action, world.acme) == wanted, (action, role, scope)


def test_another_tenants_people_see_nothing(world: World) -> None:
    for action in TABLE:
        for role in ROLES.values():
            assert outcome(world.actor(role, "globex"), action, world.acme) == "not-found", (action, role)


def test_a_platform_admin_reads_everywhere_and_acts_nowhere(world: World) -> None:
    for action in TABLE:
        wanted = "ok" if action in ("read", "read audit") else "not-found"
        assert outcome(world.root, action, world.acme) == wanted, action


@pytest.mark.parametrize("narrowed", [{"scopes": ["read", "deploy"]}, {"tenant": True}])
def test_a_narrow_token_of_a_platform_admin_isnt_one(world: World, narrowed: dict) -> None:
    token = {"scopes": ["read", "deploy", "manage"], **narrowed}
    if token.get("tenant"):
        token["tenant"] = world.acme
    actor = factories.actor(world.admin, **token)
    assert not actor.is_platform_admin
    assert outcome(actor, "read", world.globex) == "not-found"
    with pytest.raises(CytoplaneError) as caught:
        policy.authorise_platform(actor)
    assert caught.value.code == "not-found"


def test_a_token_for_one_tenant_opens_no_other_of_its_user(world: World) -> None:
    person = world.person("owner")
    actions.set_member(
        acting_user=world.actor("owner", "globex"), tenant=world.globex, email=person.email, role="owner"
    )
    actor = factories.actor(person, scopes=list(SCOPES), tenant=world.acme)
    assert outcome(actor, "read", world.acme) == "ok"
    assert outcome(actor, "read", world.globex) == "not-found"
    assert [t.slug for t in policy.visible_tenants(actor)] == ["acme"]


def test_in_a_suspended_tenant_everything_stands_still_and_can_be_read(world: World) -> None:
    actions.set_tenant_state(acting_user=world.root, tenant=world.acme, state="suspended")
    for action, (letters, _) in TABLE.items():
        for letter, role in ROLES.items():
            allowed = "ok" if action in ("read", "read audit") else "tenant-suspended"
            wanted = allowed if letter in letters else "forbidden"
            assert outcome(world.actor(role), action, world.acme) == wanted, (action, role)
    actions.set_tenant_state(acting_user=world.root, tenant=world.acme, state="active")
    assert outcome(world.actor("owner"), "deploy", world.acme) == "ok"


def test_a_missing_tenant_and_a_foreign_one_are_the_same_error(world: World) -> None:
    answers = []
    for slug in ("globex", "nowhere"):
        with pytest.raises(CytoplaneError) as caught:
            policy.get_tenant(world.actor("owner"), slug)
        answers.append(caught.value.as_dict())
    assert answers[0] == answers[1]
