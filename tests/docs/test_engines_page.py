"""docs/engines.md says what tests declare, no more and no less."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import capabilities

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "engines.md"
AGAIN = "run those tests with CYTOPLANE_ENGINES=docs/engines.md"


def test_rows_and_columns_are_those_that_tests_may_declare() -> None:
    text = PAGE.read_text()
    assert capabilities.page(capabilities.read(text)) == text, AGAIN


def test_each_cell_is_stated_by_a_test_and_each_test_has_its_cell() -> None:
    stated = set(capabilities.read(PAGE.read_text()))
    declared = capabilities.declarations(ROOT / "tests")
    assert not {name for name, _ in declared} - capabilities.CAPABILITIES.keys()
    assert stated == declared, f"{sorted(stated ^ declared)}: {AGAIN}"


def test_one_failed_test_of_a_capability_makes_its_cell_fail(tmp_path: Path) -> None:
    collector = capabilities.Collector(tmp_path / "engines.md")
    cell = ("logs", "machine")
    collector._items = {"one": [cell], "two": [cell]}
    for name, outcome, when in (
        ("one", "passed", "call"),
        ("two", "failed", "setup"),
        ("one", "passed", "call"),
    ):
        collector.pytest_runtest_logreport(
            pytest.TestReport(name, ("", 0, ""), {}, outcome, None, when)  # type: ignore[arg-type]
        )
    collector.pytest_sessionfinish()
    assert capabilities.read((tmp_path / "engines.md").read_text()) == {cell: capabilities.FAILS}
