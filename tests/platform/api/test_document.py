"""The OpenAPI document: it tells of every operation what it is, who may, and how it fails."""

from __future__ import annotations

import re
from typing import Any

import pytest

from api.document import MEANINGS
from api.root import PUBLIC, api
from tests import factories
from tests.factories import Api, World
from tests.platform.api.operations import TABLE, Stage


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return api.get_openapi_schema()


def operations(document: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    return [(p, m, o) for p, methods in document["paths"].items() for m, o in methods.items()]


def references(value: Any) -> list[str]:
    if isinstance(value, dict):
        found = [value["$ref"]] if isinstance(value.get("$ref"), str) else []
        return found + [r for below in value.values() for r in references(below)]
    return [r for below in value for r in references(below)] if isinstance(value, list) else []


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    assert re.fullmatch(r"3\.1\.\d+", document["openapi"])
    for reference in references(document):
        place: Any = document
        for part in reference.removeprefix("#/").split("/"):
            assert part in place, reference
            place = place[part]


def test_every_operation_has_a_name_of_its_own_and_a_summary(document: dict[str, Any]) -> None:
    found = [operation["operationId"] for _, _, operation in operations(document)]
    assert len(found) == len(set(found))
    for path, method, operation in operations(document):
        assert operation["summary"], (path, method)
        assert operation["tags"], (path, method)


def test_every_parameter_of_a_path_is_described(document: dict[str, Any]) -> None:
    for path, _, operation in operations(document):
        described = {p["name"] for p in operation.get("parameters", []) if p["in"] == "path"}
        assert described == set(re.findall(r"{(\w+)}", path)), path
        assert all(p["required"] for p in operation.get("parameters", []) if p["in"] == "path")


def test_everything_but_signing_in_needs_a_token_or_a_session(document: dict[str, Any]) -> None:
    assert document["security"] == [{"token": []}, {"session": []}]
    assert set(document["components"]["securitySchemes"]) == {"token", "session"}
    public = {o["operationId"] for _, _, o in operations(document) if o.get("security") == []}
    assert public == PUBLIC == {"sign_in"}


def test_every_answer_that_the_walk_sees_is_in_the_document(document: dict[str, Any]) -> None:
    from tests.platform.api.operations import ANSWERS

    for _, _, operation in operations(document):
        name = operation["operationId"]
        seen = {str(ANSWERS[letter][0]) for letter in TABLE[name].row}
        assert seen <= set(operation["responses"]), name
        for status in set(operation["responses"]) - {"200"}:
            assert int(status) in MEANINGS


@pytest.mark.django_db
def test_the_document_is_served_to_everybody() -> None:
    answer = Api().get("/openapi.json")
    assert answer.status_code == 200
    assert answer.json()["info"]["title"] == "Cytoplane"


@pytest.mark.parametrize("path", ["/nothing", "/tenants/acme/nothing", "/tenants/", "/me/"])
def test_an_address_that_nothing_is_at_is_an_error_like_others(world: World, path: str) -> None:
    answer = world.api().get(path)
    assert (answer.status_code, answer.json()["error"]["id"]) == (404, "not-found")
    assert answer.json()["error"]["request_id"] == answer["X-Request-Id"]


def test_a_method_that_isnt_possible_is_an_error_like_others(world: World) -> None:
    answer = world.api()("PUT", "/tenants")
    assert (answer.status_code, answer.json()["error"]["id"]) == (405, "method")
    assert answer["Allow"] in answer.json()["error"]["next"]


def test_what_is_too_large_is_refused_before_it_is_read() -> None:
    import asyncio
    import json

    from controlplane.asgi import application
    from controlplane.bodies import LARGEST_BODY

    async def ask(path: str) -> list[dict[str, Any]]:
        sent: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            raise AssertionError("the body was read")

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        headers = [(b"content-length", str(LARGEST_BODY + 1).encode())]
        await application({"type": "http", "path": path, "headers": headers}, receive, send)
        return sent

    start, body = asyncio.run(ask("/api/v1/tokens"))
    error = json.loads(body["body"])["error"]
    assert (start["status"], error["id"]) == (413, "too-large")
    assert set(error) == {"id", "message", "next", "request_id"}


def test_a_token_for_one_tenant_finds_the_others_missing(world: World) -> None:
    """Its owner belongs to both; the token doesn't. Walked over everything that names a tenant."""
    from tenants import actions

    stage = Stage(world)
    person = world.person("owner")
    actions.set_member(
        acting_user=world.actor("owner", "globex"), tenant=world.globex, email=person.email, role="owner"
    )
    narrow = Api(factories.bearer(person, tenant=world.globex))
    for name in TABLE:
        method, path, body = stage.request(name, "owner")
        if "/tenants/acme" not in path:
            continue
        answer = narrow(method, path, body)
        assert (answer.status_code, answer.json()["error"]["id"]) == (404, "not-found"), name


@pytest.mark.parametrize(
    ("column", "limit"), [("components", 1), ("replicas", 1), ("memory_mib", 100), ("cpu", 0.1)]
)
def test_a_plan_is_a_limit_to_scaling_and_says_which(world: World, column: str, limit: float) -> None:
    world.deploy(world.cell())
    setattr(world.plan, column, limit)
    world.plan.save()
    path = "/tenants/acme/projects/shop/environments/production/scale"
    answer = world.api("developer").post(path, {"numbers": {"web": 3}})
    assert (answer.status_code, answer.json()["error"]["id"]) == (409, "quota")
    assert f"allows {limit}" in answer.json()["error"]["message"]


def test_a_plan_is_a_limit_to_projects(world: World) -> None:
    world.plan.projects = 1
    world.plan.save()
    assert world.api().post("/tenants/acme/projects", {"slug": "one"}).status_code == 200
    answer = world.api().post("/tenants/acme/projects", {"slug": "two"})
    assert (answer.status_code, answer.json()["error"]["id"]) == (409, "quota")
    assert world.api("owner", "globex").post("/tenants/globex/projects", {"slug": "two"}).status_code == 200


def test_components_tell_their_public_addresses(world: World) -> None:
    text = "components: {web: {kind: web, command: serve, endpoints: {http: {port: 80, visibility: public, host: www}}}}"
    world.deploy(world.cell(), text)
    path = "/tenants/acme/projects/shop/environments/production/components"
    rows = world.api("viewer").get(path).json()
    assert [row["urls"] for row in rows] == [["http://www.acme.localhost:8080/"]]


def test_every_operation_is_on_the_page_of_the_api(document: dict[str, Any]) -> None:
    from pathlib import Path

    page = (Path(__file__).resolve().parents[3] / "docs" / "api.md").read_text()
    for path, method, operation in operations(document):
        request = f"{method.upper()} {path.removeprefix('/api/v1')}"
        assert f"| `{operation['operationId']}` | `{request}` |" in page, operation["operationId"]
