"""Signing in: the same answer for a wrong password and a missing account, and a limit for guessers."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import RequestFactory

from controlplane.errors import CytoplaneError
from tenants import signin
from tests import factories
from tests.factories import Api, World

pytestmark = pytest.mark.django_db


def code_of(email: str, password: str, address: str = "192.0.2.1") -> str:
    try:
        signin.verify(email, password, address)
    except CytoplaneError as error:
        return error.code
    return "ok"


def test_the_right_password_signs_in_whatever_the_case_of_the_address() -> None:
    factories.user("who@example.org", password=factories.PASSWORD)
    assert code_of(" Who@Example.ORG ", factories.PASSWORD) == "ok"


def test_a_missing_account_is_answered_like_a_wrong_password() -> None:
    factories.user("who@example.org", password=factories.PASSWORD)
    gone = factories.user("gone@example.org", password=factories.PASSWORD)
    gone.is_active = False
    gone.save()
    answers = {
        code_of("who@example.org", "wrong"),
        code_of("nobody@example.org", "wrong"),
        code_of("gone@example.org", factories.PASSWORD),
        code_of("", ""),
    }
    assert answers == {"sign-in-failed"}


def test_guessers_of_an_account_are_slowed_down(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signin, "ATTEMPTS_PER_PAIR", 3)
    factories.user("who@example.org", password=factories.PASSWORD)
    for _ in range(3):
        assert code_of("who@example.org", "wrong") == "sign-in-failed"
    assert code_of("who@example.org", factories.PASSWORD) == "too-many-attempts"
    assert code_of("other@example.org", "wrong") == "sign-in-failed"


def test_nobody_is_locked_out_by_somebody_elses_guesses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signin, "ATTEMPTS_PER_PAIR", 3)
    factories.user("who@example.org", password=factories.PASSWORD)
    for _ in range(5):
        code_of("who@example.org", "wrong", "192.0.2.66")
    assert code_of("who@example.org", factories.PASSWORD, "192.0.2.66") == "too-many-attempts"
    assert code_of("who@example.org", factories.PASSWORD, "192.0.2.1") == "ok"


def test_guesses_from_everywhere_dont_reach_where_the_account_is_known(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(signin, "ATTEMPTS_PER_ACCOUNT", 4)
    factories.user("who@example.org", password=factories.PASSWORD)
    assert code_of("who@example.org", factories.PASSWORD, "192.0.2.1") == "ok"
    for number in range(4):
        assert code_of("who@example.org", "wrong", f"198.51.100.{number}") == "sign-in-failed"
    assert code_of("who@example.org", "wrong", "198.51.100.200") == "too-many-attempts"
    assert code_of("who@example.org", factories.PASSWORD, "198.51.100.200") == "too-many-attempts"
    assert code_of("who@example.org", factories.PASSWORD, "192.0.2.1") == "ok"


def test_where_an_account_is_known_guesses_at_others_dont_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signin, "ATTEMPTS_PER_ADDRESS", 3)
    factories.user("who@example.org", password=factories.PASSWORD)
    assert code_of("who@example.org", factories.PASSWORD) == "ok"
    for number in range(4):
        code_of(f"a{number}@example.org", "wrong")
    assert code_of("b@example.org", "wrong") == "too-many-attempts"
    assert code_of("who@example.org", factories.PASSWORD) == "ok"


FORWARDED = [
    (False, "203.0.113.7", "127.0.0.1"),
    (True, "203.0.113.7", "203.0.113.7"),
    (True, "198.51.100.1, 203.0.113.7", "203.0.113.7"),
    (True, "203.0.113.7, 2001:DB8::1", "2001:db8::1"),
    (True, "203.0.113.7, x", "127.0.0.1"),
    (True, "", "127.0.0.1"),
]


@pytest.mark.parametrize(("proxy", "forwarded", "address"), FORWARDED)
def test_only_what_the_proxy_added_is_believed(
    settings: Any, proxy: bool, forwarded: str, address: str
) -> None:
    settings.TLS = proxy
    request = RequestFactory().get("/", headers={"X-Forwarded-For": forwarded})
    assert signin.address_of(request) == address


def test_guesses_through_the_proxy_lock_out_only_who_guesses(
    world: World, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.TLS = True
    monkeypatch.setattr(signin, "ATTEMPTS_PER_PAIR", 2)
    person = world.person("developer")
    person.set_password(factories.PASSWORD)
    person.save()

    def sign_in(password: str, address: str) -> int:
        body = {"email": person.email, "password": password}
        return Api()("POST", "/tokens", body, **{"X-Forwarded-For": address}).status_code

    answers = [sign_in("wrong", "198.51.100.1") for _ in range(3)]
    assert answers == [401, 401, 429]
    assert sign_in(factories.PASSWORD, "203.0.113.7") == 200


def test_guessers_of_many_accounts_are_slowed_down_by_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signin, "ATTEMPTS_PER_ADDRESS", 3)
    for number in range(3):
        assert code_of(f"a{number}@example.org", "wrong") == "sign-in-failed"
    assert code_of("b@example.org", "wrong") == "too-many-attempts"
    assert code_of("b@example.org", "wrong", "192.0.2.2") == "sign-in-failed"


def test_a_success_forgets_the_accounts_failures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signin, "ATTEMPTS_PER_PAIR", 2)
    factories.user("who@example.org", password=factories.PASSWORD)
    assert code_of("who@example.org", "wrong") == "sign-in-failed"
    assert code_of("who@example.org", factories.PASSWORD) == "ok"
    assert code_of("who@example.org", "wrong") == "sign-in-failed"
    assert code_of("who@example.org", factories.PASSWORD) == "ok"


def test_signing_in_over_the_api_gives_a_token_that_works(world: World) -> None:
    person = world.person("developer")
    person.set_password(factories.PASSWORD)
    person.save()
    body = {"email": person.email, "password": factories.PASSWORD}
    given = Api().post("/tokens", body)
    assert given.status_code == 200
    me = Api(given.json()["token"]).get("/me").json()
    assert me["email"] == person.email
    assert [(t["slug"], t["role"]) for t in me["tenants"]] == [("acme", "developer")]
    wrong = Api().post("/tokens", {**body, "password": "wrong"})
    assert (wrong.status_code, wrong.json()["error"]["id"]) == (401, "sign-in-failed")
