"""A run of everything is a run of each file once, by groups that don't meet."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from infra import run_tests


def test_each_file_is_in_one_group() -> None:
    given = [path for files in run_tests.groups().values() for path in files]
    assert len(given) == len(set(given))
    assert set(given) == {
        path.relative_to(run_tests.ROOT).as_posix()
        for path in Path(run_tests.ROOT, "tests").rglob("test_*.py")
    }


def test_what_needs_the_same_is_together() -> None:
    found = run_tests.groups()
    assert "tests/cells/test_workloads.py" in found["cluster"]
    assert "tests/cells/test_validation.py" in found["platform"]
    assert "tests/dataplane/agent/pods/test_pods.py" in found["cluster"]
    assert "tests/dataplane/agent/test_watch.py" in found["kernel"]
    assert "tests/dataplane/planes/test_units.py" in found["platform"]
    assert found["platform"][-1].startswith("tests/e2e/")
    # The engines' tests need both a whole installation and the cluster.
    assert found["cluster"][-1].startswith("tests/e2e/")
    assert "tests/e2e/test_engines.py" in found["cluster"]
    assert "tests/conformance/test_mutations.py" in found["kernel"]


@pytest.mark.parametrize("net", range(16))
def test_groups_have_numbers_of_their_own(net: int) -> None:
    own = run_tests.numbers(net).values()
    assert run_tests.numbers(net)["kernel"] == net
    # Each takes the second one after it as well.
    assert len({*own, *((number + 2) % 16 for number in own)}) == 2 * len(own)


def test_failures_are_told_after_the_count_with_their_reason(tmp_path: Path) -> None:
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    (tmp_path / "test_made.py").write_text(
        "import pytest\n"
        "def test_good(): pass\n"
        "def test_skipped(): pytest.skip('not here')\n"
        "def test_bad():\n    assert 1 == 2, 'one\\n  is not two'\n"
        "@pytest.fixture\ndef broken(): raise OSError('nothing there')\n"
        "def test_error(broken): pass\n"
    )
    told = tmp_path / "told"
    options = ["-q", "-p", "no:django", "-p", "infra.count", f"--count-file={told}"]
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", *options, "test_made.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(run_tests.ROOT)},
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 1 and told.exists(), ended.stdout + ended.stderr
    count, bad, error = told.read_text().splitlines()
    assert count == "1 passed, 2 failed, 1 skipped"
    assert bad.startswith("test_made.py::test_bad [call] test_made.py:5: AssertionError: one is not two")
    assert error == "test_made.py::test_error [setup] test_made.py:7: OSError: nothing there"
