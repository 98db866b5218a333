"""docs/engines.md says what tests declare, no more and no less."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import capabilities

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "engines.md"


def test_the_page_has_a_cell_for_each_engine_and_what_tests_state() -> None:
    text = PAGE.read_text()
    assert text == capabilities.page(capabilities.read(text)), "run `python -m tests.capabilities`"
    names = {name for name, _ in capabilities.declarations(ROOT / "tests")}
    assert not names - capabilities.CAPABILITIES.keys()


def test_a_cell_that_no_test_states_any_more_is_taken_back() -> None:
    kept, gone = ("logs", "machine"), ("logs", "kubernetes-shared")
    text = capabilities.page({kept: capabilities.WORKS, gone: capabilities.WORKS}, {kept})
    assert capabilities.read(text) == {kept: capabilities.WORKS}


def test_one_failed_test_of_a_capability_makes_its_cell_fail(tmp_path: Path) -> None:
    cell = ("logs", "machine")
    collector = capabilities.Collector(tmp_path / "engines.md", {cell})
    collector._items = {"one": [cell], "two": [cell]}
    for name, outcome, when in (
        ("one", "passed", "call"),
        ("two", "failed", "call"),
        ("one", "passed", "call"),
    ):
        collector.pytest_runtest_logreport(
            pytest.TestReport(name, ("", 0, ""), {}, outcome, None, when)  # type: ignore[arg-type]
        )
    collector.pytest_sessionfinish()
    assert capabilities.read((tmp_path / "engines.md").read_text()) == {cell: capabilities.FAILS}


def test_a_test_that_didnt_get_its_engine_says_nothing_any_more(tmp_path: Path) -> None:
    page, cell = tmp_path / "engines.md", ("logs", "machine")
    capabilities.write(page, {cell: capabilities.WORKS}, {cell})
    collector = capabilities.Collector(page, {cell})
    collector._items = {"one": [cell]}
    collector.pytest_runtest_logreport(
        pytest.TestReport("one", ("", 0, ""), {}, "failed", None, "setup")  # type: ignore[arg-type]
    )
    collector.pytest_sessionfinish()
    assert not capabilities.read(page.read_text())
