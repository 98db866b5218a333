"""What protects the portal from other sites and from the applications that run beside it."""

from __future__ import annotations

import pytest
from django.conf import settings

from controlplane.middleware import CSP
from tests import factories
from tests.factories import World
from tests.web.routes import browser


def token_of(client) -> str:  # type: ignore[no-untyped-def]
    """The form token of a page that the client sees."""
    text = client.get("/-/tokens").content.decode()
    return text.split('name="csrfmiddlewaretoken" value="')[1].split('"')[0]


@pytest.fixture
def owner(world: World):  # type: ignore[no-untyped-def]
    client = factories.client(enforce_csrf_checks=True)
    client.force_login(world.person("owner"))
    return client


def form(client, **headers: str) -> int:  # type: ignore[no-untyped-def]
    body = {"slug": "billing", "csrfmiddlewaretoken": token_of(client)}
    return client.post("/acme/-/new", body, headers={"Accept": "text/html", **headers}).status_code


def test_the_policy_forbids_inline_code_and_other_sites(world: World) -> None:
    policy = browser(world, "owner").get("/acme")["Content-Security-Policy"]
    assert policy == CSP
    assert "unsafe" not in policy
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'none'"
    assert rules["frame-ancestors"] == "'none'"
    allowed = {source for sources in rules.values() for source in sources.split()}
    assert allowed <= {"'self'", "'none'", "data:"}


def test_pages_carry_no_inline_code(world: World) -> None:
    client = browser(world, "owner")
    world.deploy(world.cell(world.project("shop")))
    for path in ("/acme", "/acme/shop/production", "/acme/shop/production/configuration", "/acme/-/members"):
        text = client.get(path).content.decode()
        assert "<style" not in text
        assert " style=" not in text
        assert " onclick=" not in text
        assert text.count("<script") == text.count('<script type="module" src="/static/')


def test_a_form_is_taken_only_with_the_sessions_token(owner) -> None:  # type: ignore[no-untyped-def]
    answer = owner.post("/acme/-/new", {"slug": "billing"}, headers={"Accept": "text/html"})
    assert answer.status_code == 403
    assert "The form was not sent from this site." in answer.content.decode()
    assert form(owner) == 302


@pytest.mark.parametrize("origin", ["http://evil.example", "http://shop.acme.localhost:8080", "null"])
def test_a_form_from_another_origin_is_refused_even_with_the_token(owner, origin: str) -> None:  # type: ignore[no-untyped-def]
    assert form(owner, Origin=origin) == 403


@pytest.mark.parametrize("page", ["/acme?q=%00", "/acme/-/audit?q=%00", "/acme/shop/production/logs?q=%00"])
def test_what_cant_be_in_the_database_is_the_senders_error(world: World, page: str) -> None:
    world.project()
    answer = browser(world, "owner").get(page, headers={"Accept": "text/html"})
    assert answer.status_code == 422
    assert "zero byte" in answer.content.decode()


def test_a_request_for_another_host_is_refused(owner) -> None:  # type: ignore[no-untyped-def]
    assert owner.get("/acme", headers={"Host": "shop.acme.localhost"}).status_code == 400


def test_the_only_cookie_is_the_hosts_own_session(world: World) -> None:
    client = factories.client()
    factories.user("one@example.org", password=factories.PASSWORD)
    answer = client.post("/sign-in", {"email": "one@example.org", "password": factories.PASSWORD})
    assert answer.status_code == 302
    assert set(answer.cookies) == {settings.SESSION_COOKIE_NAME}
    cookie = answer.cookies[settings.SESSION_COOKIE_NAME]
    assert cookie["httponly"]
    assert cookie["samesite"] == "Lax"
    assert cookie["domain"] == ""
    assert answer["Cache-Control"] == "no-store"


@pytest.mark.parametrize(
    "target", ["//evil.example/", "https://evil.example/", "\\\\evil.example", "javascript:0"]
)
def test_sign_in_leads_nowhere_else(world: World, target: str) -> None:
    answer = browser(world, "owner").get("/sign-in", {"next": target})
    assert answer["Location"] == "/"


def test_signing_in_changes_the_sessions_key(world: World) -> None:
    client = factories.client()
    factories.user("two@example.org", password=factories.PASSWORD)
    client.get("/sign-in")
    before = client.session.session_key
    client.post("/sign-in", {"email": "two@example.org", "password": factories.PASSWORD})
    assert client.session.session_key != before
