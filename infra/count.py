"""A pytest plugin that writes `N passed, N failed, N skipped` to a file, errors counted as failed.

Below that line comes one for each failure: the test, where it failed and why.
"""

from __future__ import annotations

from pathlib import Path

import pytest

#: What a failure may take of the closing lines, in characters.
_WIDTH = 500


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--count-file", default="", help="where to write the line that counts tests")


def _told(report: pytest.TestReport | pytest.CollectReport) -> str:
    """A failure in one line: what failed, where and why."""
    crash = getattr(report.longrepr, "reprcrash", None)
    if crash is None:
        why = str(report.longrepr).strip().rsplit("\n", 1)[-1]
    else:
        why = f"{Path(crash.path).name}:{crash.lineno}: {' '.join(crash.message.split())}"
    return f"{report.nodeid} [{getattr(report, 'when', None) or 'collect'}] {why}"[:_WIDTH]


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter, config: pytest.Config) -> None:
    file = config.getoption("--count-file")
    if not file:
        return
    stats = terminalreporter.stats
    number = {kind: len(stats.get(kind, [])) for kind in ("passed", "failed", "error", "skipped")}
    failed = number["failed"] + number["error"]
    lines = [f"{number['passed']} passed, {failed} failed, {number['skipped']} skipped"]
    lines += [_told(report) for kind in ("failed", "error") for report in stats.get(kind, [])]
    Path(file).write_text("\n".join(lines) + "\n")
