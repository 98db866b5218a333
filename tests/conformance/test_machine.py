"""The boundary on one machine, against the oracle."""

from __future__ import annotations

import pytest

from bpf.tables import Tables
from infra.config import Config
from tests.bpf.conftest import kernel, tables  # noqa: F401  fixtures
from tests.conformance.run import check, expected, probes_of
from tests.conformance.world import generate

pytestmark = pytest.mark.root


@pytest.mark.parametrize("seed", [1])
def test_every_probe_gets_the_answer_that_the_oracle_expects(
    kernel: Config, tables: Tables, seed: int
) -> None:
    number, wrong = check(kernel, tables, seed)
    print(f"{number} probes, {len(wrong)} wrong")
    assert wrong == []


def test_worlds_hold_allowed_and_denied_calls_of_every_kind() -> None:
    verdicts: dict[tuple, set[bool]] = {}
    for world in map(generate, (1, 2, 3)):
        for probe in probes_of(world):
            port = next(p for p in world.thing(probe.callee).ports if p.name == probe.port)
            if not port.declared or probe.caller == probe.callee:
                continue
            kind = (probe.way, probe.family, port.is_tcp, probe.hooked)
            verdicts.setdefault(kind, set()).add(bool(expected(world, probe)))
    for (way, _, _, hooked), seen in verdicts.items():
        # Without hooks a service's address means nothing, so there it's denied for everybody.
        assert seen == ({False} if way != "container" and not hooked else {True, False})
