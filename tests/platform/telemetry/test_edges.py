"""What a tenant sees of the calls that were refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

from cells.boundary import Explanation
from projects.models import Cell, Connection, Endpoint, Workload
from telemetry import queries
from telemetry.actions import record_flows
from tests.factories import World

pytestmark = pytest.mark.django_db
STRICT = """
strict: true
components:
  web: {kind: web, command: serve}
  api: {kind: service, command: serve, endpoints: {http: {port: 9000, visibility: tenant}}}
"""
OTHER = "components: {api: {kind: service, command: serve, endpoints: {http: {port: 9000}}}}"


def flow(source: int, destination: int, reason: str, **more: Any) -> dict[str, Any]:
    return {
        "source": source, "destination": destination, "remote": "", "port": 9000, "protocol": 6, "direction": 0,
        "allowed": False, "reason": reason, "rule": 0, "packets": 1, "bytes": 60, **more,
    }  # fmt: skip


def identity(cell: Cell, component: str) -> int:
    return Workload.objects.get(cell=cell, component__name=component).identity


def why(cell: Cell, source: str, destination: str, port: int) -> Explanation:
    return queries.why(cell, source, destination, port)[2][0]


@pytest.fixture
def cell(world: World) -> Cell:
    made = world.cell()
    world.deploy(made, STRICT)
    return world.cell(made.project)


def test_a_refused_call_names_the_rule_and_the_declaration_that_would_have_had_to_allow_it(
    world: World, cell: Cell
) -> None:
    record_flows(world.plane, [flow(identity(cell, "web"), identity(cell, "api"), "NO_RULE")])
    (row,) = queries.edges(cell, denied=True)
    rule = Endpoint.objects.get(workload__cell=cell, workload__component__name="api").rule
    answer = why(cell, "web", "api", 9000)
    assert (row["source"], row["destination"], row["rule"]) == ("web", "api", rule)
    assert (row["sentence"], row["fix"]) == (answer.sentence, answer.fix)
    assert "to: api.http" in row["fix"]


def test_an_external_call_that_is_refused_is_told_what_to_declare(world: World, cell: Cell) -> None:
    calls = [flow(identity(cell, "web"), 2, "EGRESS", remote="198.51.100.7", port=443)]
    record_flows(world.plane, calls)
    (row,) = queries.edges(cell, denied=True)
    assert "cidr: 198.51.100.7/32, port: 443" in row["fix"]
    assert "egress is closed" in row["sentence"]


def test_the_floor_has_a_rule_and_no_remedy(world: World, cell: Cell) -> None:
    record_flows(world.plane, [flow(identity(cell, "web"), 1, "NODE", remote="192.0.2.1")])
    (row,) = queries.edges(cell, denied=True)
    assert (row["rule"], row["fix"]) == (5, "")
    assert row["sentence"]


def test_another_tenant_is_nobody_on_either_side(world: World, cell: Cell) -> None:
    foreign = world.cell(tenant="globex", project=world.project("vault", "globex"))
    world.deploy(foreign, OTHER)
    target = identity(foreign, "api")
    refused = flow(identity(cell, "web"), target, "NO_RULE", remote="10.64.32.9")
    record_flows(world.plane, [refused, refused | {"direction": 1}])
    (mine,), (theirs,) = queries.edges(cell, denied=True), queries.edges(foreign, denied=True)
    assert (mine["source"], mine["destination"], mine["remote"]) == ("web", "another tenant", "")
    assert (theirs["source"], theirs["destination"], theirs["remote"]) == ("another tenant", "api", "")
    assert not [word for word in ("vault", "globex", "10.64") if word in json.dumps(mine, default=str)]
    assert not [
        word for word in ("shop", "acme", "10.64", "`web`") if word in json.dumps(theirs, default=str)
    ]


def test_a_node_reports_only_on_what_its_plane_runs(world: World, cell: Cell) -> None:
    from dataplane.planes.models import Plane

    elsewhere = Plane.objects.create(name="elsewhere", engine=Plane.Engine.MACHINE)
    assert record_flows(elsewhere, [flow(identity(cell, "web"), 2, "EGRESS", remote="198.51.100.7")]) == 0
    assert queries.edges(cell) == []


def test_what_is_allowed_keeps_the_rule_that_the_kernel_used(world: World, cell: Cell) -> None:
    allowed = flow(identity(cell, "web"), identity(cell, "api"), "", allowed=True, rule=1234)
    record_flows(world.plane, [allowed])
    (row,) = queries.edges(cell)
    assert (row["verdict"], row["rule"], row["fix"], row["sentence"]) == ("allowed", 1234, "", "")


def test_a_name_that_was_asked_for_in_vain_is_the_end_of_its_edge(world: World, cell: Cell) -> None:
    asked = flow(identity(cell, "web"), 0, "NAME", remote="api.vault", port=53, protocol=17)
    record_flows(world.plane, [asked])
    (row,) = queries.edges(cell, denied=True)
    assert (row["source"], row["destination"], row["reason"]) == ("web", "api.vault", "NAME")
    assert row["sentence"]


def test_a_name_as_the_resolver_knows_it_is_explained_as_the_component(world: World, cell: Cell) -> None:
    by_name = why(cell, "web", "api.shop", 9000)
    assert by_name == why(cell, "web", "shop/api", 9000)
    assert by_name.reason == "STRICT"
    # Of another tenant's names, nothing is known.
    foreign = world.cell(tenant="globex", project=world.project("vault", "globex"))
    world.deploy(foreign, OTHER)
    assert why(cell, "web", "api.vault", 9000).reason == "EGRESS_NOT_DECLARED"


def test_what_passes_with_a_reason_is_audited_and_told_as_what_would_be_denied(
    world: World, cell: Cell
) -> None:
    web, api = identity(cell, "web"), identity(cell, "api")
    audited = flow(web, api, "NO_RULE", allowed=True)
    record_flows(world.plane, [audited, audited, flow(web, api, "OK", allowed=True)])
    rows = {row["verdict"]: row for row in queries.edges(cell)}
    assert set(rows) == {"allowed", "audited"}
    assert (rows["audited"]["packets"], rows["audited"]["reason"]) == (2, "NO_RULE")
    assert "to: api.http" in rows["audited"]["fix"]
    assert [row["verdict"] for row in queries.edges(cell, denied=True)] == ["audited"]
    assert [row["verdict"] for row in queries.edges(cell, denied=False)] == ["allowed"]


def test_an_allowed_call_outside_is_called_by_what_was_declared(world: World, cell: Cell) -> None:
    text = (
        "components: {web: {command: serve, connections: ["
        "{external: {host: '*.example.com', port: 8443}, as: X}, {external: {cidr: 203.0.113.0/24}, as: Y}]}}"
    )
    world.deploy(cell, text)
    rules = dict(Connection.objects.filter(workload__cell=cell).values_list("key", "rule"))
    named, network = rules["external:*.example.com:8443/tcp"], rules["external:203.0.113.0/24:443/tcp"]
    for rule, port in ((named, 8443), (network, 443)):
        # What is allowed is counted by rule, whatever the address.
        seen = flow(identity(cell, "web"), 2, "", allowed=True, rule=rule, port=port)
        record_flows(world.plane, [seen])
    stripped = flow(identity(cell, "web"), 2, "NAME_FLOOR", remote="a.example.com", port=443)
    record_flows(world.plane, [stripped])
    found = {row["destination"]: row for row in queries.edges(cell)}
    assert set(found) == {"*.example.com", "203.0.113.0/24", "a.example.com"}
    refused = found["a.example.com"]
    assert refused["verdict"] == "denied"
    assert "no tenant can open" in refused["sentence"]
