"""Every operation of the OpenAPI document, asked by everybody, compared with the written table."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.db import transaction

from tests.factories import World
from tests.platform.api.operations import ANSWERS, CALLERS, TABLE, Stage, document


@pytest.fixture
def stage(world: World) -> Stage:
    return Stage(world)


def ask(stage: Stage, name: str, caller: str, **values: str) -> tuple[int, dict[str, Any]]:
    """Status and document of an answer; whatever the request did is undone."""
    method, path, body = stage.request(name, caller, **values)
    client = stage.client(caller, TABLE[name].scope)
    with transaction.atomic():
        response = client(method, path, body)
        content = b"".join(response) if response.streaming else response.content  # type: ignore[arg-type]
        transaction.set_rollback(True)
    plain = response["Content-Type"].startswith("text/plain")
    return response.status_code, {} if plain else json.loads(content)


def error(answer: Any) -> dict[str, Any]:
    return answer.get("error") or {} if isinstance(answer, dict) else {}


def test_every_operation_has_its_row() -> None:
    assert set(TABLE) == set(document())
    assert all(len(operation.row) == len(CALLERS) for operation in TABLE.values())


@pytest.mark.filterwarnings("ignore:StreamingHttpResponse must consume asynchronous iterators")
def test_everybody_gets_what_the_table_says(stage: Stage) -> None:
    wrong = []
    for name, operation in TABLE.items():
        for caller, letter in zip(CALLERS, operation.row, strict=True):
            status, answer = ask(stage, name, caller)
            got = (status, error(answer).get("id", ""))
            if got != ANSWERS[letter]:
                wrong.append((name, caller, ANSWERS[letter], got, error(answer).get("message", "")))
    assert not wrong, "\n".join(map(str, wrong))


def test_refusals_tell_what_to_do_next_and_their_request(stage: Stage) -> None:
    for name, operation in TABLE.items():
        for caller, letter in zip(CALLERS, operation.row, strict=True):
            if letter == ".":
                continue
            _, answer = ask(stage, name, caller)
            assert set(answer) == {"error"}
            assert set(answer["error"]) == {"id", "message", "next", "request_id"}
            assert len(answer["error"]["request_id"]) == 16
            assert answer["error"]["next"].endswith(".")
            assert "<" not in answer["error"]["message"], "a parameter of the sentence is missing"


def anonymised(answer: tuple[int, dict[str, Any]]) -> tuple[int, dict[str, Any]]:
    status, document_ = answer
    return status, {**error(document_), "request_id": ""}


def test_a_foreign_tenants_things_are_answered_like_missing_ones(stage: Stage) -> None:
    """Tenant by tenant, project by project, number by number: not one byte differs."""
    for name, (_, path) in document().items():
        if "{tenant}" not in path and "/tenants/{slug}" not in path or path.startswith("/admin"):
            continue
        own = {"tenant": "acme", "slug": "acme"}
        missing = {"tenant": "nowhere", "slug": "nowhere"}
        seen = anonymised(ask(stage, name, "stranger", **own))
        assert seen == anonymised(ask(stage, name, "stranger", **missing)), name
        assert seen[0] == 404


def test_another_tenants_numbers_below_ones_own_names_are_missing(stage: Stage) -> None:
    world = stage.world
    world.deploy(world.cell(world.project("shop", "globex")))
    for name in ("get_deployment", "cancel_deployment", "retry_deployment", "deployment_log"):
        own = {"tenant": "globex", "environment": "production"}
        foreign = anonymised(ask(stage, name, "stranger", number=stage.values["failed"], **own))
        missing = anonymised(ask(stage, name, "stranger", number="99999999", **own))
        assert foreign == missing, name
        assert foreign[0] == 404
    # Release numbers are each cell's own: two exist in acme's, one in globex's.
    seen = anonymised(ask(stage, "rollback", "stranger", tenant="globex", number="2"))
    assert (seen[0], seen[1]["id"]) == (404, "not-found")


def test_the_same_project_in_another_environment_has_other_deployments(stage: Stage) -> None:
    status, answer = ask(
        stage, "get_deployment", "owner", environment="production", number=stage.values["waiting"]
    )
    assert (status, error(answer)["id"]) == (404, "not-found")
