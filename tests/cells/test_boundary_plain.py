"""Declared cells survive being kept as JSON, whatever is in them."""

from __future__ import annotations

import json
from dataclasses import fields, replace

from hypothesis import HealthCheck, given, settings

from cells.boundary import model
from cells.boundary.model import Cell, Topology
from cells.boundary.plain import plain, restore
from tests.cells.test_boundary_properties import worlds


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(worlds())
def test_a_cell_comes_back_as_it_was(topology: Topology) -> None:
    for cell in topology.cells:
        assert restore(Cell, json.loads(json.dumps(plain(cell)))) == cell


def test_nothing_that_differs_from_its_default_is_lost() -> None:
    endpoint = model.Endpoint(1, "http", 80, "http", "public", ("a.b", "c.d"), True)
    connection = model.Connection(2, "OUT", external=model.External(443, "tcp", cidr="203.0.113.0/24"))
    replica = model.Replica("r1", "10.0.0.1", "fd00::1", True)
    workload = model.Workload(256, "web", "10.1.0.1", "fd00::2", (endpoint,), (connection,), (replica,))
    bare = Cell(1, 1, "acme", "shop", "production", 1000, 90001, "10.0.1.1", "fd00::3")
    full = replace(bare, strict=True, audit=True, workloads=(workload,))
    assert restore(Cell, json.loads(json.dumps(plain(full)))) == full
    assert set(plain(bare)) < {field.name for field in fields(Cell)}, "defaults aren't kept"
