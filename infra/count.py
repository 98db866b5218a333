"""A pytest plugin that writes `N passed, N failed, N skipped` to a file, errors counted as failed."""

from __future__ import annotations

from pathlib import Path

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--count-file", default="", help="where to write the line that counts tests")


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter, config: pytest.Config) -> None:
    file = config.getoption("--count-file")
    if not file:
        return
    stats = terminalreporter.stats
    number = {kind: len(stats.get(kind, [])) for kind in ("passed", "failed", "error", "skipped")}
    failed = number["failed"] + number["error"]
    Path(file).write_text(f"{number['passed']} passed, {failed} failed, {number['skipped']} skipped\n")
