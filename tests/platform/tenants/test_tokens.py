"""Tokens: shown once, stored as a digest, and dead when they end, are revoked or lose their user."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.db import connection
from django.utils import timezone

from controlplane.errors import CytoplaneError
from tenants import actions, tokens
from tenants.models import Token
from tests import factories
from tests.factories import Api, World


def refused(secret: str) -> str:
    with pytest.raises(CytoplaneError) as caught:
        tokens.resolve(secret)
    return caught.value.code


def test_the_secret_is_nowhere_in_the_database(world: World) -> None:
    _, secret = tokens.issue(world.person(), name="ci", scopes=["read"], days=1)
    with connection.cursor() as cursor:
        cursor.execute("SELECT row_to_json(t)::text FROM tenants_token t")
        rows = "".join(row[0] for row in cursor.fetchall())
        cursor.execute("SELECT row_to_json(t)::text FROM tenants_auditevent t")
        rows += "".join(row[0] for row in cursor.fetchall())
    assert secret not in rows
    assert secret[9:] not in rows
    assert tokens.digest(secret) in rows
    assert tokens.resolve(secret).user == world.person()


def test_what_isnt_a_live_token_opens_nothing(world: World) -> None:
    person = world.person()
    token, secret = tokens.issue(person, name="ci", scopes=["read"], days=1)
    for wrong in ("", "cy_", secret[:-1], secret + "x", tokens.digest(secret), secret.upper()):
        assert refused(wrong) == "token-invalid"
    Token.objects.filter(pk=token.pk).update(expires_at=timezone.now() - timedelta(seconds=1))
    assert refused(secret) == "token-invalid"
    Token.objects.filter(pk=token.pk).update(expires_at=timezone.now() + timedelta(days=1))
    assert tokens.resolve(secret) == token
    person.is_active = False
    person.save()
    assert refused(secret) == "token-invalid"
    person.is_active = True
    person.save()
    actions.revoke_token(acting_user=factories.actor(person), token_id=token.pk)
    assert refused(secret) == "token-invalid"


def test_a_person_has_so_many_and_dead_ones_are_forgotten(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokens, "MOST", 2)
    person = world.person()
    made = [tokens.issue(person, name="ci", scopes=["read"], days=1)[0] for _ in range(2)]
    with pytest.raises(CytoplaneError) as caught:
        tokens.issue(person, name="ci", scopes=["read"], days=1)
    assert caught.value.code == "conflict"
    tokens.issue(world.person("viewer"), name="ci", scopes=["read"], days=1)
    actions.revoke_token(acting_user=factories.actor(person), token_id=made[0].pk)
    Token.objects.filter(pk=made[1].pk).update(expires_at=timezone.now() - 2 * tokens.KEPT)
    tokens.issue(person, name="ci", scopes=["read"], days=1)
    assert set(person.tokens.values_list("pk", flat=True)) & {t.pk for t in made} == {made[0].pk}


@pytest.mark.parametrize(
    ("scopes", "days", "code"),
    [
        ([], 1, "invalid"),
        (["root"], 1, "invalid"),
        (["read", "everything"], 1, "invalid"),
        (["read"], 0, "invalid"),
        (["read"], -1, "invalid"),
        (["read"], 367, "invalid"),
    ],
)
def test_scopes_and_lives_are_bounded(world: World, scopes: list, days: int, code: str) -> None:
    with pytest.raises(CytoplaneError) as caught:
        actions.create_token(acting_user=world.actor(), name="x", scopes=scopes, days=days)
    assert caught.value.code == code
    assert not Token.objects.exists()


def test_a_token_makes_no_wider_token(world: World) -> None:
    narrow = factories.actor(world.person(), scopes=["read", "manage"], tenant=world.acme)
    for scopes, tenant, code in (
        (["deploy"], world.acme, "token-scope"),
        (["read"], None, "not-found"),
        (["read"], world.globex, "not-found"),
    ):
        with pytest.raises(CytoplaneError) as caught:
            actions.create_token(acting_user=narrow, name="x", scopes=scopes, days=1, tenant=tenant)
        assert caught.value.code == code
    token, _ = actions.create_token(acting_user=narrow, name="x", scopes=["read"], days=1, tenant=world.acme)
    assert token.tenant == world.acme


def test_a_token_that_may_only_read_neither_makes_nor_ends_others(world: World) -> None:
    """Else a leaked one could outlive its own end."""
    person = world.person()
    own, secret = tokens.issue(person, name="ci", scopes=["read", "deploy"], days=1)
    other, other_secret = tokens.issue(person, name="laptop", scopes=["read"], days=1)
    api = Api(secret)
    made = api.post("/me/tokens", {"name": "x", "scopes": ["read"], "days": 300})
    assert made.status_code == 403
    assert made.json()["error"]["id"] == "token-scope"
    ended = api("DELETE", f"/me/tokens/{other.pk}")
    assert ended.json()["error"]["id"] == "token-scope"
    assert tokens.resolve(other_secret) == other
    # Its own end it may always bring about: signing out.
    assert api("DELETE", "/me/token").status_code == 200
    assert refused(secret) == "token-invalid"


def test_nobody_ends_somebody_elses_token(world: World) -> None:
    token, secret = tokens.issue(world.person("viewer"), name="v", scopes=["read"], days=1)
    with pytest.raises(CytoplaneError) as caught:
        actions.revoke_token(acting_user=world.actor("owner"), token_id=token.pk)
    assert caught.value.code == "not-found"
    assert tokens.resolve(secret) == token


def test_a_role_that_was_lowered_lowers_its_tokens(world: World) -> None:
    api = world.api("developer")
    assert api.post("/tenants/acme/projects", {"slug": "one"}).status_code == 200
    actions.set_member(
        acting_user=world.actor("owner"),
        tenant=world.acme,
        email=world.person("developer").email,
        role="viewer",
    )
    assert api.post("/tenants/acme/projects", {"slug": "two"}).json()["error"]["id"] == "forbidden"


def test_use_is_noted_without_a_write_for_each_request(world: World) -> None:
    token, secret = tokens.issue(world.person(), name="ci", scopes=["read"], days=1)
    tokens.resolve(secret)
    first = Token.objects.get(pk=token.pk).last_used_at
    assert first is not None
    tokens.resolve(secret)
    assert Token.objects.get(pk=token.pk).last_used_at == first
