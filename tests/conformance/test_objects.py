"""Worlds made of the platform's own objects: by its actions, over PostgreSQL, to the kernel."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from bpf.tables import Tables
from cells.boundary import compile_topology
from dataplane.planes import actions as planes
from dataplane.planes import snapshots
from infra.config import Config
from tests import factories
from tests.cells.topologies import normal
from tests.conformance import objects
from tests.conformance.direct import topology
from tests.conformance.documents import decode
from tests.conformance.engine_machine import MachineSite, site
from tests.conformance.judging import chosen, judge
from tests.conformance.world import World, generate

pytestmark = pytest.mark.root
SEED = 8
PROBES = 4000


@pytest.fixture
def built(
    kernel: Config, tables: Tables, world: factories.World, settings: Any
) -> tuple[MachineSite, World, factories.World]:
    """A world in the database of an installation that has the kernel's numbers."""
    place = site(kernel, tables)
    settings.CONFIG = replace(settings.CONFIG, net=place.config.net, apps_port=place.config.apps_port)
    made = generate(SEED, components=2)
    objects.build(world, made)
    objects.renumber(made)
    return place, made, world


def test_the_platforms_objects_make_the_same_tables_and_every_probe_gets_its_answer(
    built: tuple[MachineSite, World, factories.World],
) -> None:
    place, made, rows = built
    # The rows were changed without the actions that would have said so.
    planes.note(rows.plane)
    snapshots.rebuild(rows.plane.pk)
    document = snapshots.whole(rows.plane.pk)
    boundary, compiled_from = decode(document["boundary"]), snapshots.topology(rows.plane)
    by_hand = replace(topology(made, place.config), floor=compiled_from.floor)
    assert normal(boundary) == normal(compile_topology(by_hand))
    engine = place.engine(made, compiled_from, boundary)
    try:
        result = judge(made, compiled_from, place.config, engine, chosen(made, PROBES))
    finally:
        engine.close()
    print(f"{result.probes} probes, {len(result.wrong)} wrong")
    assert result.wrong == []
    assert result.probes == PROBES
