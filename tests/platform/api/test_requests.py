"""Requests and answers: what is wrong is said, pages have an end, sessions need their CSRF token."""

from __future__ import annotations

import json

import pytest
from django.conf import settings
from django.db import OperationalError, connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from delivery import api as delivery_api
from delivery.models import LogChunk
from telemetry.models import LogLine
from tenants import actions, audit
from tenants.models import Membership, Token
from tests import factories
from tests.factories import Api, World


def test_what_isnt_the_documents_form_is_named_with_its_field(world: World) -> None:
    api = world.api()
    for body, field in (({}, "slug"), ({"slug": 3}, "slug"), ({"slug": "a", "strict": "perhaps"}, "strict")):
        answer = api.post("/tenants/acme/projects", body)
        assert answer.status_code == 422
        assert answer.json()["error"]["id"] == "invalid"
        assert field in answer.json()["error"]["next"]


@pytest.mark.parametrize("body", ["", "{", "[]", "null", '"text"', "\x00"])
def test_a_body_that_isnt_a_json_object_is_refused_in_the_common_form(world: World, body: str) -> None:
    client, secret = Client(raise_request_exception=False), factories.bearer(world.person())
    answer = client.post(
        "/api/v1/tenants/acme/projects",
        data=body,
        content_type="application/json",
        headers={"Authorization": f"Bearer {secret}"},
    )
    assert answer.status_code in (400, 422)
    assert answer.json()["error"]["id"] == "invalid"


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/tenants/a%00b", None),
        ("GET", "/tenants/acme/projects/%00", None),
        ("GET", "/tenants/acme/projects/shop/environments/production/logs?component=%00", None),
        ("POST", "/tokens", {"email": "a\0b", "password": "x"}),
        ("PUT", "/tenants/acme/members/a%00b", {"role": "viewer"}),
        ("POST", "/me/tokens", {"name": "\0", "scopes": ["read"]}),
        ("POST", "/tenants/acme/projects", {"slug": "other", "description": "\0"}),
        ("GET", "/tenants/acme/projects/shop/environments/production/deployments/" + "9" * 30, None),
        ("GET", f"/tenants/acme/audit?before={10**30}", None),
        ("GET", f"/tenants/acme/projects/shop/environments/production/logs?after={10**30}", None),
        ("DELETE", "/me/tokens/" + "9" * 30, None),
    ],
)
def test_zero_bytes_and_numbers_beyond_all_bounds_are_the_senders_error(
    world: World, method: str, path: str, body: dict | None
) -> None:
    world.project("shop")
    answer = world.api()(method, path, body)
    assert answer.status_code < 500, answer.content
    assert "internal" not in answer.content.decode()


def test_too_long_a_name_is_the_senders_error(world: World) -> None:
    answer = Api(factories.bearer(world.admin)).post("/admin/tenants", {"slug": "long", "name": "x" * 500})
    assert (answer.status_code, answer.json()["error"]["id"]) == (422, "invalid")


def test_an_unexpected_failure_keeps_its_details_to_the_log(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("the password is swordfish")

    monkeypatch.setattr("projects.queries.get_project", broken)
    answer = world.api().get("/tenants/acme/projects/shop")
    assert answer.status_code == 500
    assert answer.json()["error"]["id"] == "internal"
    assert answer.json()["error"]["request_id"] == answer["X-Request-Id"]
    assert b"swordfish" not in answer.content


def test_a_database_that_is_away_is_told_as_something_to_try_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object) -> None:
        raise OperationalError("server closed the connection unexpectedly")

    monkeypatch.setattr("projects.queries.get_project", away)
    answer = world.api().get("/tenants/acme/projects/shop")
    assert (answer.status_code, answer.json()["error"]["id"]) == (503, "unavailable")


def test_pages_walk_the_audit_log_without_gaps_or_repeats(world: World) -> None:
    for number in range(25):
        audit.record(world.root, f"verb.{number}", world.acme, tenant=world.acme)
    api, seen, before = world.api(), [], ""
    while True:
        part = api.get(f"/tenants/acme/audit?limit=7{before}").json()
        if not part:
            break
        assert len(part) <= 7
        seen += part
        before = f"&before={part[-1]['id']}"
    ids = [event["id"] for event in seen]
    assert ids == sorted(set(ids), reverse=True)
    assert [event["verb"] for event in seen][:25] == [f"verb.{n}" for n in range(24, -1, -1)]


@pytest.mark.parametrize(("limit", "given"), [("0", 1), ("-5", 1), ("3", 3), ("100000", 200)])
def test_the_size_of_a_page_is_bounded(world: World, limit: str, given: int) -> None:
    for number in range(205):
        audit.record(world.root, f"verb.{number}", world.acme, tenant=world.acme)
    assert len(world.api().get(f"/tenants/acme/audit?limit={limit}").json()) == given


def test_releases_and_deployments_are_paged_newest_first(world: World) -> None:
    cell = world.cell()
    for _ in range(3):
        world.deploy(cell)
    api, base = world.api("viewer"), "/tenants/acme/projects/shop/environments/production"
    assert [r["number"] for r in api.get(f"{base}/releases?limit=2").json()] == [3, 2]
    assert [r["number"] for r in api.get(f"{base}/releases?before=2").json()] == [1]
    first = api.get(f"{base}/deployments?limit=2").json()
    rest = api.get(f"{base}/deployments?before={first[-1]['id']}").json()
    assert [d["release"] for d in first + rest] == [3, 2, 1]


def test_logs_go_on_after_the_last_line_seen(world: World) -> None:
    cell = world.cell()
    for number in range(5):
        LogLine.objects.create(
            cell=cell,
            component="web",
            replica=1,
            stream="stdout",
            at="2030-01-01T00:00:00Z",
            text=str(number),
        )
    api, base = world.api("viewer"), "/tenants/acme/projects/shop/environments/production/logs"
    newest = api.get(f"{base}?limit=2").json()
    assert [line["text"] for line in newest] == ["3", "4"]
    assert api.get(f"{base}?after={newest[-1]['id']}").json() == []
    assert [x["text"] for x in api.get(f"{base}?after={newest[0]['id']}").json()] == ["4"]


def test_lists_ask_the_database_as_often_for_many_rows_as_for_one(world: World) -> None:
    cell, api = world.cell(), world.api("viewer")
    base = "/tenants/acme/projects/shop/environments/production"
    paths = [f"{base}/{name}" for name in ("releases", "deployments", "replicas", "config")]
    paths += ["/tenants/acme/projects", "/tenants/acme/members", "/tenants/acme/audit", "/me/tokens"]

    def numbers() -> dict[str, int]:
        found = {}
        for path in paths:
            client = world.api("admin") if path.endswith("audit") else api
            client.get(path)
            with CaptureQueriesContext(connection) as queries:
                assert client.get(path).status_code == 200
            found[path] = len(queries)
        return found

    world.deploy(cell)
    one = numbers()
    for number in range(3):
        world.deploy(cell)
        world.project(f"more{number}")
    assert numbers() == one


@pytest.mark.django_db(transaction=True)
@pytest.mark.filterwarnings("ignore:StreamingHttpResponse must consume asynchronous iterators")
def test_a_deployments_log_is_plain_text_and_ends() -> None:
    world = World()
    cell = world.cell()
    deployment = world.push(cell)
    LogChunk.objects.create(deployment=deployment, text="-----> first\n")
    world.carry(deployment)
    path = f"/tenants/acme/projects/shop/environments/production/deployments/{deployment.pk}/log"
    for query in ("", "?follow=true"):
        answer = world.api("viewer").get(path + query)
        assert answer["Content-Type"] == "text/plain; charset=utf-8"
        text = b"".join(answer).decode()
        assert text.startswith("-----> first\n")
        assert "v1 is live in production" in text


@pytest.mark.django_db(transaction=True)
@pytest.mark.filterwarnings("ignore:StreamingHttpResponse must consume asynchronous iterators")
@pytest.mark.parametrize("how", ["membership", "token"])
def test_a_followed_log_ends_when_its_reader_may_not_read_it_any_more(
    how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World()
    deployment = world.push(world.cell())
    monkeypatch.setattr(delivery_api, "_CHECK_SECONDS", 0.0)
    monkeypatch.setattr(delivery_api, "_FOLLOW_SECONDS", 6)
    path = f"/tenants/acme/projects/shop/environments/production/deployments/{deployment.pk}/log"
    answer = world.api("viewer").get(f"{path}?follow=true")
    if how == "membership":
        Membership.objects.filter(user=world.person("viewer")).delete()
    else:
        Token.objects.update(revoked_at=timezone.now())
    LogChunk.objects.create(deployment=deployment, text="secret\n")
    assert b"secret" not in b"".join(answer)


class Session:
    """A browser that is signed in to the portal."""

    def __init__(self, world: World) -> None:
        self.client = Client(enforce_csrf_checks=True, raise_request_exception=False)
        self.client.force_login(world.person("owner"))
        session = self.client.session
        self.token = "a" * 32
        session["_csrftoken"] = self.token
        session.save()

    def post(self, **headers: str):  # type: ignore[no-untyped-def]
        return self.client.post(
            "/api/v1/tenants/acme/projects",
            data=json.dumps({"slug": "shop"}),
            content_type="application/json",
            headers=headers,
        )


def test_a_session_reads_freely_and_writes_only_with_its_csrf_token(world: World) -> None:
    browser = Session(world)
    assert browser.client.get("/api/v1/me").json()["email"] == world.person("owner").email
    for headers in ({}, {"X-CSRFToken": "b" * 32}, {"X-CSRFToken": ""}):
        answer = browser.post(**headers)
        assert (answer.status_code, answer.json()["error"]["id"]) == (403, "csrf")
    assert browser.post(**{"X-CSRFToken": browser.token}).status_code == 200


def test_a_form_of_another_origin_isnt_taken_even_with_the_token(world: World) -> None:
    browser = Session(world)
    answer = browser.post(**{"X-CSRFToken": browser.token, "Origin": "http://shop.acme.localhost:8080"})
    assert (answer.status_code, answer.json()["error"]["id"]) == (403, "csrf")


def test_a_wrong_bearer_token_isnt_rescued_by_a_session(world: World) -> None:
    browser = Session(world)
    answer = browser.client.get("/api/v1/me", headers={"Authorization": "Bearer cy_wrong"})
    assert (answer.status_code, answer.json()["error"]["id"]) == (401, "token-invalid")


def test_a_disabled_account_loses_session_and_tokens(world: World) -> None:
    browser, api = Session(world), world.api("owner")
    person = world.person("owner")
    person.is_active = False
    person.save()
    assert browser.client.get("/api/v1/me").status_code == 401
    assert api.get("/me").json()["error"]["id"] == "token-invalid"


def test_answers_are_nobodys_to_cache_and_carry_no_code(world: World) -> None:
    answer = world.api().get("/me")
    assert answer["Cache-Control"] == "no-store"
    assert "default-src 'none'" in answer["Content-Security-Policy"]
    assert answer["X-Content-Type-Options"] == "nosniff"
    assert answer["X-Frame-Options"] == "DENY"


@pytest.mark.django_db
def test_another_sites_name_isnt_served() -> None:
    answer = Client(raise_request_exception=False).get("/healthz", headers={"Host": "shop.acme.localhost"})
    assert answer.status_code == 400
    assert "shop.acme.localhost" not in settings.ALLOWED_HOSTS


def test_a_suspended_tenant_says_so(world: World) -> None:
    actions.set_tenant_state(acting_user=world.root, tenant=world.acme, state="suspended")
    answer = world.api().post("/tenants/acme/projects", {"slug": "shop"})
    assert (answer.status_code, answer.json()["error"]["id"]) == (403, "tenant-suspended")
    assert world.api("viewer").get("/tenants/acme").json()["state"] == "suspended"


def test_a_project_is_changed_only_in_what_is_given(world: World) -> None:
    world.project("shop")
    api = world.api()
    assert api("PATCH", "/tenants/acme/projects/shop", {"strict": True}).json()["strict"] is True
    changed = api("PATCH", "/tenants/acme/projects/shop", {"audit": True}).json()
    assert (changed["strict"], changed["audit"]) == (True, True)
    assert api("PATCH", "/tenants/acme/projects/shop", {}).json()["error"]["id"] == "invalid"
