"""The oracle bites: each compiler that is wrong in one place gives wrong answers, the right one none."""

from __future__ import annotations

import pytest

from bpf.tables import Tables
from infra.config import Config
from tests.conformance import oracle
from tests.conformance.direct import topology
from tests.conformance.engine import Engine
from tests.conformance.engine_machine import site
from tests.conformance.mutations import MUTATIONS, compiled
from tests.conformance.probes import NAME, PING, SHORT, Probe, probes_of
from tests.conformance.world import World, generate

pytestmark = pytest.mark.root
SEED = 13


def test_a_compiler_that_is_wrong_in_one_edge_is_found_out(
    kernel: Config, tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    world, place = generate(SEED, components=2), site(kernel, tables)
    compiled_from = topology(world, place.config)
    # Names are the resolver's, which these don't change; one family has the other's entries.
    probes = [p for p in probes_of(world) if p.family == 4 and p.hooked and p.way not in (NAME, SHORT, PING)]
    engine = place.engine(world, compiled_from, compiled(compiled_from))
    unnoticed = []
    try:
        for name, mutation in MUTATIONS.items():
            with monkeypatch.context() as patched:
                mutation(patched)
                engine.apply(compiled(compiled_from))
            if not _surprises(world, engine, probes):
                unnoticed.append(name)
        engine.apply(compiled(compiled_from))
        right = _surprises(world, engine, _surprises(world, engine, probes))
    finally:
        engine.close()
    assert unnoticed == []
    assert right == []


def _surprises(world: World, engine: Engine, probes: list[Probe]) -> list[Probe]:
    answers = engine.ask(probes)
    return [probe for probe in probes if answers[probe] not in oracle.expected(world, probe)]
