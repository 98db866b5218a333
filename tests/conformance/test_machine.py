"""The boundary on one machine, against the oracle."""

from __future__ import annotations

import pytest

from bpf.tables import Tables
from infra.config import Config
from tests.conformance import oracle
from tests.conformance.engine_machine import site
from tests.conformance.probes import CONTAINER, DOOR, EXTERNAL, LISTENER, NAME, SERVICE, SHORT, probes_of
from tests.conformance.run import check
from tests.conformance.world import generate


@pytest.mark.root
@pytest.mark.parametrize("seed", [1])
def test_every_probe_gets_the_answer_that_the_oracle_expects(
    kernel: Config, tables: Tables, seed: int
) -> None:
    result = check(site(kernel, tables), seed)
    print(f"{result.probes} probes, {len(result.wrong)} wrong")
    assert result.wrong == []
    assert result.probes >= 10_000


def test_worlds_hold_calls_of_every_kind_and_of_every_outcome() -> None:
    seen: dict[tuple, set[str]] = {}
    for world in map(generate, (1, 2, 3)):
        for probe in probes_of(world):
            if probe.caller < 0 or world.owner(probe.caller).identity == probe.callee:
                continue
            outcome = oracle.outcome(world, probe)
            seen.setdefault((probe.way, probe.hooked, probe.family, probe.protocol), set()).add(outcome)
            seen.setdefault((probe.way, probe.hooked), set()).add(outcome)
    for (way, hooked, *kind), outcomes in seen.items():
        if way in (SERVICE, NAME, SHORT) and not hooked:
            # Without hooks a service's address means nothing, so there it's denied for everybody.
            assert outcomes == {oracle.NO}
        elif way in (DOOR, LISTENER, SERVICE, NAME, SHORT, CONTAINER, EXTERNAL):
            assert kind or outcomes >= {oracle.NO, oracle.YES}, way
            audited = way not in (DOOR, LISTENER) and not kind
            assert oracle.REPORTED in outcomes or not audited, way


def test_a_seed_makes_the_same_world_and_asks_the_same() -> None:
    assert generate(5) == generate(5)
    assert probes_of(generate(5)) == probes_of(generate(5))
    assert generate(5) != generate(6)
