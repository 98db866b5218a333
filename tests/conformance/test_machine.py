"""The boundary on one machine, against the oracle."""

from __future__ import annotations

import pytest

from bpf.tables import Tables
from infra.config import Config
from tests.bpf.conftest import kernel, tables  # noqa: F401  fixtures
from tests.conformance.run import check

pytestmark = pytest.mark.root


@pytest.mark.parametrize("seed", [1])
def test_every_probe_gets_the_answer_that_the_oracle_expects(
    kernel: Config, tables: Tables, seed: int
) -> None:  # noqa: F811
    number, wrong = check(kernel, tables, seed)
    print(f"{number} probes, {len(wrong)} wrong")
    assert wrong == []
