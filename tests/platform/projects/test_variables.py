"""Configuration is bounded: every process gets it, every release keeps it."""

from __future__ import annotations

import pytest

from controlplane.errors import CytoplaneError
from projects import actions
from projects.models import Cell
from tests.factories import World


def put(world: World, cell: Cell, values: dict[str, str], unset: list[str] | None = None) -> bool:
    return actions.set_variables(acting_user=world.actor(), cell=cell, secrets=values, unset=unset)


def test_variables_have_a_size_together(world: World) -> None:
    cell, large = world.cell(), "x" * actions.LARGEST_VALUE
    fits = actions.LARGEST_CONFIGURATION // actions.LARGEST_VALUE - 1
    assert put(world, cell, {f"V{number}": large for number in range(fits)})
    with pytest.raises(CytoplaneError) as caught:
        put(world, cell, {"ONE": large, "MORE": large})
    assert caught.value.code == "invalid"
    assert cell.variables.count() == fits
    assert put(world, cell, {"ONE": large, "MORE": large}, unset=["V0", "V1"])
    # Room is for each cell.
    assert put(world, world.cell(cell.project, "staging"), {"ONE": large})


def test_variables_have_a_number(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(actions, "MOST_VARIABLES", 3)
    cell = world.cell()
    assert put(world, cell, dict.fromkeys("ABC", ""))
    with pytest.raises(CytoplaneError) as caught:
        put(world, cell, {"D": ""})
    assert "at most 3 variables" in caught.value.message
    assert put(world, cell, {"D": ""}, unset=["A"])
