"""Every address of the portal, asked by everybody, compared with the written table."""

from __future__ import annotations

import re

import pytest
from django.db import transaction

from tenants.models import AuditEvent
from tests.factories import World
from tests.platform.api.operations import Stage
from tests.web.routes import CALLERS, STREAM, TABLE, address, ask, browser, letter
from web import urls

PAGES = {key: route for key, route in TABLE.items() if route.row != STREAM}
STREAMS = {key: route for key, route in TABLE.items() if route.row == STREAM}


@pytest.fixture
def stage(world: World) -> Stage:
    return Stage(world)


def test_every_address_has_its_row() -> None:
    assert {path for _, path in TABLE} == {str(pattern.pattern) for pattern in urls.urlpatterns}
    assert all(len(route.row) == len(CALLERS) for route in TABLE.values())


def test_everybody_gets_what_the_table_says_and_refusals_change_nothing(stage: Stage) -> None:
    wrong = []
    for caller in CALLERS:
        for key, route in PAGES.items():
            expected = route.row[CALLERS.index(caller)]
            with transaction.atomic():
                client = browser(stage.world, caller)
                before = AuditEvent.objects.count()
                got = letter(ask(client, stage, key))
                changed = AuditEvent.objects.count() != before
                transaction.set_rollback(True)
            if got != expected or (changed and got in "SFNU"):
                wrong.append((key, caller, expected, got, changed))
    assert not wrong, "\n".join(map(str, wrong))


def plain(content: bytes) -> str:
    """A page without what differs from one request to the next."""
    text = re.sub(r"request [0-9a-f]{16}", "request", content.decode())
    return re.sub(r'name="csrfmiddlewaretoken" value="\w+"', "", text)


def test_a_foreign_tenants_things_are_answered_like_missing_ones(stage: Stage) -> None:
    """Tenant by tenant: not one byte differs."""
    client = browser(stage.world, "stranger")
    for key in PAGES:
        if not key[1].startswith("<slug:tenant>"):
            continue
        foreign, missing = ask(client, stage, key), ask(client, stage, key, tenant="nowhere")
        assert (foreign.status_code, missing.status_code) == (404, 404), key
        assert plain(foreign.content) == plain(missing.content), key


def test_missing_projects_environments_components_and_numbers_are_not_found(stage: Stage) -> None:
    client = browser(stage.world, "owner")
    waiting = stage.values["waiting"]
    for name, value in (
        ("project", "nothing"),
        ("environment", "nothing"),
        ("component", "nothing"),
        ("number", "99999999"),
        ("number", waiting),  # of the same project's other environment
    ):
        for key in PAGES:
            if f":{name}>" not in key[1] or not key[1].startswith("<slug:tenant>"):
                continue
            if value == waiting and "/cancel" in key[1] or key[1].endswith("/scale"):
                continue
            assert ask(client, stage, key, **{name: value}).status_code == 404, (key, name, value)


def test_the_palette_finds_nothing_of_other_tenants(stage: Stage) -> None:
    for caller, found in (("viewer", True), ("stranger", False)):
        answer = browser(stage.world, caller).get("/-/palette?q=shop").content.decode()
        assert ("/acme/shop" in answer) is found


def test_a_secret_is_on_no_page(stage: Stage) -> None:
    from projects import actions

    world = stage.world
    actions.set_variables(acting_user=world.actor(), cell=stage.cell, secrets={"KEY": "hidden-value"})
    client = browser(world, "owner")
    for key in PAGES:
        if key[0] == "GET":
            assert b"hidden-value" not in ask(client, stage, key).content, key


@pytest.mark.filterwarnings("ignore:StreamingHttpResponse must consume asynchronous iterators")
def test_streams_are_for_those_who_may_read(committed_world: World) -> None:
    """Committed, since a stream reads in threads of its own."""
    stage = Stage(committed_world)
    for caller in CALLERS:
        client = browser(committed_world, caller)
        for key, route in STREAMS.items():
            response = ask(client, stage, key)
            assert letter(response) == route.row[CALLERS.index(caller)], (key, caller)
            response.close()
    stranger = browser(committed_world, "stranger")
    key = next(iter(STREAMS))
    assert stranger.get(address(stage, key, tenant="nowhere")).status_code == 404
