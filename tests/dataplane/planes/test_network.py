"""What components declare of their network, as far as their plan allows it, in what nodes get."""

from __future__ import annotations

from typing import Any

import pytest
from django.conf import settings

from cells.boundary.model import Limits, Workload
from controlplane.errors import CytoplaneError
from dataplane.planes import documents, network, snapshots, topology
from dataplane.planes.models import Node
from projects import quotas
from projects.models import Cell
from tests import factories
from tests.factories import World

WEB = "components: {{web: {{kind: web, command: serve, {}}}}}"


def workload(world: World) -> Workload:
    (found,) = (workload for cell in snapshots.topology(world.plane).cells for workload in cell.workloads)
    return found


def deployed(world: World, declared: str = "replicas: 1") -> Cell:
    cell = world.cell()
    world.deploy(cell, WEB.format(declared))
    return cell


def ceilings(world: World, mbit: int, per_second: int, open_: int) -> None:
    world.plan.bandwidth_mbit, world.plan.connections_per_second = mbit, per_second
    world.plan.connections = open_
    world.plan.save()


@pytest.mark.parametrize(
    ("declared", "expected"),
    [
        ("{}", (100 * 125_000, 100 * 125_000, 50, 500)),
        (
            "{bandwidth_out: 8M, bandwidth_in: 16M, connections_per_second: 20, connections: 40}",
            (10**6, 2 * 10**6, 20, 40),
        ),
    ],
)
def test_what_is_declared_counts_else_the_plan(world: World, declared: str, expected: Limits) -> None:
    ceilings(world, 100, 50, 500)
    deployed(world, f"limits: {declared}")
    assert workload(world).limits == expected


def test_a_plan_that_is_made_smaller_counts_from_then_on(world: World) -> None:
    deployed(world, "limits: {connections: 400}")
    ceilings(world, 100, 50, 300)
    assert workload(world).limits[3] == 300
    ceilings(world, 0, 0, 0)
    assert workload(world).limits == (0, 0, 0, 400)


@pytest.mark.parametrize(
    "limits", ["bandwidth_in: 101M", "bandwidth_out: 1G", "connections_per_second: 51", "connections: 501"]
)
def test_more_than_the_plan_allows_is_refused_before_it_starts(world: World, limits: str) -> None:
    ceilings(world, 100, 50, 500)
    specification = factories.specification(WEB.format(f"limits: {{{limits}}}"))
    cell = world.cell()
    with pytest.raises(CytoplaneError) as refused:
        quotas.check(cell, specification, {})
    assert refused.value.code == "quota"
    ceilings(world, 0, 0, 0)
    quotas.check(cell, specification, {})


def test_a_replicas_share_is_the_cpu_of_the_release_that_it_runs(world: World) -> None:
    cell = deployed(world, "limits: {cpu: 0.25}")
    assert [replica.weight for replica in workload(world).replicas] == [25]
    push = world.push(world.cell(cell.project))
    from delivery import machine

    machine.advance(push.pk)
    factories.built(push, WEB.format("limits: {cpu: 1.5}"))
    machine.advance(push.pk)
    assert sorted(replica.weight for replica in workload(world).replicas) == [25, 150]


def test_cells_cost_one_query_however_much_there_is_in_them(world: World, django_assert_num_queries) -> None:
    number = deployed(world, "replicas: 5").number
    with django_assert_num_queries(1):
        rows = topology.rows(world.plane, [number])
        (cell,) = topology.declared(rows, settings.CONFIG)
        assert len(documents.endpoints(rows, settings.CONFIG)[number]) == 5
    assert [replica.weight for replica in cell.workloads[0].replicas] == [50] * 5


def test_ping_balancing_and_translation_reach_the_compiler(world: World) -> None:
    deployed(
        world,
        "ping: true, network: {services: off}, endpoints: {db: {port: 5432, protocol: tcp, balance: consistent, affinity: 1m}}",
    )
    made = workload(world)
    assert made.ping
    assert [(e.balance, e.affinity) for e in made.endpoints] == [("consistent", 60)]


def test_open_connections_are_the_nodes_word_and_only_numbers_count(world: World) -> None:
    cell = deployed(world, "limits: {connections: 40, bandwidth_in: 16M}")
    cell = world.cell(cell.project)
    specification = factories.specification(WEB.format("limits: {connections: 40, bandwidth_in: 16M}"))
    assert network.in_force(cell, specification)["web"] == {
        "bandwidth_in": 16 * 10**6, "bandwidth_out": 0,
        "connections_per_second": 5000, "connections": 40, "connections_open": None,
    }  # fmt: skip
    identity = workload(world).identity
    words: list[Any] = [
        {str(identity): 7, "x": 1, "9" * 5000: 1},
        {str(identity): 5},
        {str(identity): "9"},
        [],
        None,
    ]
    for number, said in enumerate(words):
        Node.objects.create(
            plane=world.plane, kind=Node.Kind.AGENT, name=f"n{number}", health={"connections": said}
        )
    assert network.in_force(cell, specification)["web"]["connections_open"] == 12
