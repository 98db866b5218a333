"""What is above a limit is told with the limit, and with what to write to have more."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from projects.models import Cell
from telemetry import queries
from telemetry.actions import record_flows
from tests.factories import World
from tests.platform.telemetry.test_edges import flow, identity

pytestmark = pytest.mark.django_db
LIMITED = """
components:
  web: {kind: web, command: serve, limits: {connections: 50, bandwidth_out: 10M}}
  api:
    kind: service
    command: serve
    limits: {connections_per_second: 3000, bandwidth_in: 5.5M}
    endpoints: {http: {port: 9000, visibility: tenant}}
"""
INGRESS = 1


@pytest.fixture
def cell(world: World) -> Cell:
    made = world.cell()
    world.deploy(made, LIMITED)
    return world.cell(made.project)


def told(world: World, cell: Cell, reason: str, **more: Any) -> dict[str, Any]:
    record_flows(world.plane, [flow(identity(cell, "web"), identity(cell, "api"), reason, **more)])
    (row,) = (row for row in queries.edges(cell, denied=True) if row["reason"] == reason)
    return row


def limits(row: dict[str, Any], component: str) -> dict[str, Any]:
    return yaml.safe_load(row["fix"])["components"][component]["limits"]


def test_a_callers_limit_is_the_callers(world: World, cell: Cell) -> None:
    row = told(world, cell, "CONNECTIONS")
    assert row["sentence"] == "`web` has its 50 connections open."
    assert limits(row, "web") == {"connections": 100}


def test_a_providers_limit_is_the_providers_and_never_above_the_plan(world: World, cell: Cell) -> None:
    row = told(world, cell, "RATE", direction=INGRESS)
    assert row["sentence"] == "`api` is at its 3000 new connections per second."
    assert limits(row, "api") == {"connections_per_second": 5000}


def test_bandwidth_is_told_in_megabits(world: World, cell: Cell) -> None:
    row = told(world, cell, "BANDWIDTH", direction=INGRESS)
    assert row["sentence"] == "`api` is at its bandwidth: in 5.5 Mbit/s."
    assert limits(row, "api") == {"bandwidth_in": "11M"}


def test_the_plans_ceiling_is_told_as_such_and_nothing_is_to_be_written(world: World, cell: Cell) -> None:
    row = told(world, cell, "CONNECTIONS", direction=INGRESS)
    assert row["sentence"] == "`api` has its 20000 connections open. That is the plan's ceiling."
    assert row["fix"] == ""


def test_another_tenants_limit_is_nobodys_business(world: World, cell: Cell) -> None:
    other = world.cell(world.project("shop", "globex"))
    world.deploy(other, LIMITED.replace("kind: web", "kind: worker"))
    record_flows(
        world.plane, [flow(identity(cell, "web"), identity(other, "api"), "RATE", direction=INGRESS)]
    )
    assert queries.edges(cell, denied=True) == []
    (row,) = queries.edges(other, denied=True)
    assert "3000" in row["sentence"]
