"""What nodes say of their addresses is explained as they judge it, and opens or closes nothing."""

from __future__ import annotations

from typing import Any

import pytest

from dataplane.planes import snapshots
from dataplane.planes.models import Node
from projects.models import Cell
from telemetry import queries
from tests.factories import World

pytestmark = pytest.mark.django_db
WIDE = """
components:
  web:
    kind: web
    command: serve
    connections:
      - {external: {cidr: 203.0.113.0/24, port: 443, protocol: tcp}, as: THERE}
      - {external: {cidr: "2001:db8::/32", port: 443, protocol: tcp}, as: SIX}
"""


@pytest.fixture
def cell(world: World) -> Cell:
    made = world.cell()
    world.deploy(made, WIDE)
    return world.cell(made.project)


def say(world: World, health: Any) -> None:
    Node.objects.filter(plane=world.plane).update(health=health)


def addresses(*said: Any) -> dict[str, Any]:
    return {"facts": {"addresses": list(said)}}


def allowed(cell: Cell, address: str) -> bool:
    return queries.why(cell, "web", address, 443)[2][0].allowed


def test_an_address_of_a_node_is_explained_as_closed_within_a_declared_network(
    world: World, cell: Cell
) -> None:
    assert allowed(cell, "203.0.113.7") and allowed(cell, "2001:db8::7")
    say(world, addresses("203.0.113.7/32", "2001:db8::7/128"))
    for address in ("203.0.113.7", "2001:db8::7"):
        answer = queries.why(cell, "web", address, 443)[2][0]
        assert (answer.allowed, answer.reason) == (False, "FLOOR")
    assert allowed(cell, "203.0.113.8") and allowed(cell, "2001:db8::8")
    whole = queries.why(cell, "web", "203.0.113.0/24", 443)[2][0]
    assert whole.allowed and "stays closed" in whole.sentence


def test_what_a_node_says_is_in_no_table(world: World, cell: Cell) -> None:
    before = snapshots.whole(world.plane.pk)
    say(world, addresses("203.0.113.7/32"))
    snapshots.rebuild(world.plane.pk, [cell.number, 0])
    assert snapshots.whole(world.plane.pk) == before


@pytest.mark.parametrize(
    "health",
    [
        None, [], {"facts": None}, {"facts": []}, {"facts": {"addresses": "203.0.113.7"}},
        addresses("203.0.113.0/24", "0.0.0.0/0", "::/0"), addresses(7, None, ["203.0.113.7"], "x" * 9000),
    ],
)  # fmt: skip
def test_what_isnt_an_address_closes_nothing(world: World, cell: Cell, health: Any) -> None:
    say(world, {} if health is None else health)
    assert allowed(cell, "203.0.113.7")


def test_another_planes_nodes_are_no_concern_of_this_one(world: World, cell: Cell) -> None:
    other = Node.objects.filter(plane=world.plane).get().plane
    stranger = type(other).objects.create(name="other", engine=other.engine)
    Node.objects.create(plane=stranger, kind=Node.Kind.AGENT, name="n", health=addresses("203.0.113.7/32"))
    assert allowed(cell, "203.0.113.7")
