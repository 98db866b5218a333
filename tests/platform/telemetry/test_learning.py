"""What refused and audited traffic would need, and what no declaration of the project's opens."""

from __future__ import annotations

import json

import pytest
import yaml

from cells.specification import parse
from projects import actions
from projects.models import Cell
from telemetry.actions import record_flows
from telemetry.learning import lessons
from tests.factories import World
from tests.platform.telemetry.test_edges import OTHER, STRICT, flow, identity

pytestmark = pytest.mark.django_db


@pytest.fixture
def cell(world: World) -> Cell:
    made = world.cell()
    world.deploy(made, STRICT)
    return world.cell(made.project)


def test_refused_calls_become_the_connections_that_they_lack(world: World, cell: Cell) -> None:
    web, api = identity(cell, "web"), identity(cell, "api")
    record_flows(
        world.plane,
        [
            flow(web, api, "NO_RULE", packets=3),
            flow(web, api, "NO_RULE", allowed=True, packets=2),
            flow(web, 2, "EGRESS", remote="198.51.100.7", port=443),
            flow(web, 2, "EGRESS", remote="198.51.100.8", port=53, protocol=17),
            flow(web, 2, "EGRESS", remote="2001:db8::7", port=443),
            flow(api, web, "NO_RULE", direction=1),
        ],
    )
    found = lessons(cell)
    assert [(row.component, row.target, row.packets) for row in found.connections][0] == (
        "web",
        "api.http",
        5,
    )
    assert found.connections[0].audited
    assert {row.target for row in found.connections[1:]} == {
        "198.51.100.7/32 port 443/tcp", "198.51.100.8/32 port 53/udp", "2001:db8::7/128 port 443/tcp"
    }  # fmt: skip
    assert not found.excluded
    # What is listed can be written down as it is: names differ, and every item is one that is understood.
    declared = yaml.safe_load(found.yaml)["components"]["web"]["connections"]
    text = yaml.safe_dump({"components": {**yaml.safe_load(STRICT)["components"]}})
    document = yaml.safe_load(text)
    document["components"]["web"]["connections"] = declared
    read = parse({"cytoplane.yaml": json.dumps(document)}, project="shop", detected={".": "python"}, domain="localhost")  # fmt: skip
    assert len(read.components["web"].connections) == 4


def test_what_cant_be_opened_is_said_with_the_reason(world: World, cell: Cell) -> None:
    foreign = world.cell(tenant="globex", project=world.project("vault", "globex"))
    world.deploy(foreign, OTHER)
    web = identity(cell, "web")
    record_flows(
        world.plane,
        [
            flow(web, identity(foreign, "api"), "NO_RULE", remote="10.64.32.9"),
            flow(web, 2, "FLOOR", remote="169.254.169.254", port=80),
            flow(web, 0, "NAME", remote="api.vault", port=53, protocol=17),
            flow(web, 0, "NAME", remote="_ldap._tcp.example.com", port=53, protocol=17),
            flow(web, 4, "NO_RULE", remote="10.64.0.3", port=80),
            flow(web, 1, "NODE", remote="192.0.2.1", port=22),
        ],
    )
    found = lessons(cell)
    assert [(row.component, row.target) for row in found.connections] == [("web", "api.vault port 443/tcp")]
    assert "guess" in found.connections[0].note
    assert {row.target for row in found.excluded} == {
        "another tenant port 9000/tcp", "169.254.169.254 port 80/tcp", "192.0.2.1 port 22/tcp",
        "_ldap._tcp.example.com", "10.64.0.3 port 80/tcp",
    }  # fmt: skip
    assert all(row.sentence for row in found.excluded)
    told = json.dumps(found.as_dict(), default=str)
    assert not [word for word in ("globex", "10.64.32.9") if word in told]


def test_a_name_that_a_strict_project_may_not_ask_for_is_the_connection_behind_it(
    world: World, cell: Cell
) -> None:
    record_flows(world.plane, [flow(identity(cell, "web"), 0, "NAME", remote="api", port=53, protocol=17)])
    assert [row.item for row in lessons(cell).connections] == [{"to": "api.http"}]


def test_what_is_declared_meanwhile_and_what_others_do_isnt_listed(world: World, cell: Cell) -> None:
    web, api = identity(cell, "web"), identity(cell, "api")
    record_flows(world.plane, [flow(web, api, "NO_RULE"), flow(api, web, "NO_RULE", port=8080)])
    assert {row.component for row in lessons(cell).connections} == {"web", "api"}
    actions.Project.objects.filter(pk=cell.project_id).update(strict=False)
    world.deploy(world.cell(cell.project), STRICT.replace("strict: true", "strict: false"))
    assert not lessons(world.cell(cell.project)).connections
