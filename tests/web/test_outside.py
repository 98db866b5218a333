"""Calls to names of the outside world in a cell's picture: one end, declared and used."""

from __future__ import annotations

import pytest

from projects.models import Connection, Workload
from telemetry.actions import record_flows
from tests.factories import World
from web.access import Place
from web.queries_cell import picture

pytestmark = pytest.mark.django_db
DECLARED = """
components:
  web:
    kind: web
    command: serve
    connections:
      - {external: {host: '*.example.com', port: 443}, as: PARTNER}
      - {external: {cidr: 203.0.113.0/24, port: 5432}, as: DB}
"""


def test_what_was_called_by_a_declared_name_is_the_declared_end(world: World) -> None:
    cell = world.cell()
    world.deploy(cell, DECLARED)
    cell = world.cell(cell.project)
    identity = Workload.objects.get(cell=cell).identity
    rules = dict(Connection.objects.filter(workload__cell=cell).values_list("key", "rule"))
    for key, port in (("external:*.example.com:443/tcp", 443), ("external:203.0.113.0/24:5432/tcp", 5432)):
        flow = {
            "source": identity, "destination": 2, "remote": "", "port": port, "protocol": 6, "direction": 0,
            "allowed": True, "reason": "OK", "rule": rules[key], "packets": 7, "bytes": 700,
        }  # fmt: skip
        record_flows(world.plane, [flow])
    place = Place(world.actor(), cell.project.tenant, cell.project, cell.environment, cell)
    edges = {e.destination.name: e for e in picture(place).edges if e.source.name == "web"}
    assert {name: (edge.packets, edge.declared) for name, edge in edges.items()} == {
        "*.example.com": (7, True),
        "203.0.113.0/24": (7, True),
    }
