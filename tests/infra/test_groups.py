"""A run of everything is a run of each file once, by groups that don't meet."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
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
        "@pytest.mark.parametrize('nothing', [])\ndef test_nothing(nothing): pass\n"
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
    assert bad.startswith("test_made.py::test_bad [call] test_made.py:6: AssertionError: one is not two")
    assert error == "test_made.py::test_error [setup] test_made.py:8: OSError: nothing there"


#: A run of two groups in the folder that it is given.
_RUN = """
import sys
from pathlib import Path
from infra import run_tests
run_tests.ROOT = Path(sys.argv[1])
sys.exit(run_tests.run(dict.fromkeys(("kernel", "platform"), ["test_made.py"]), ["-p", "no:django"], 11))
"""
#: A test that goes on for longer than anybody waits, and a fixture that removes what it made.
_LONG = """
import os, time
from pathlib import Path
import pytest

@pytest.fixture
def made():
    file = Path("made-" + os.environ["CYTOPLANE_TEST_NET"])
    file.write_text(str(os.getsid(0)))
    yield
    file.rename("removed-" + file.read_text())

def test_long(made):
    time.sleep(100)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_who_ends_a_run_ends_its_groups_and_they_clean_up(tmp_path: Path, number: signal.Signals) -> None:
    (tmp_path / "pyproject.toml").touch()
    (tmp_path / "test_made.py").write_text(_LONG)
    environment = {**os.environ, "PYTHONPATH": str(run_tests.ROOT)}
    command = [sys.executable, "-c", _RUN, str(tmp_path)]
    run = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        end = time.monotonic() + 60
        while len(made := [text for file in tmp_path.glob("made-*") if (text := file.read_text())]) < 2:
            assert run.poll() is None and time.monotonic() < end, made
            time.sleep(0.05)
        run.send_signal(number)
        output, _ = run.communicate(timeout=60)
    finally:
        run.kill()
    assert run.returncode == 1, output
    assert output.splitlines()[-1] == "0 passed, 0 failed, 0 skipped"
    # Each in a session of its own, and each told.
    assert len(set(made)) == 2
    assert not list(tmp_path.glob("made-*")), output
    assert {file.name for file in tmp_path.glob("removed-*")} == {f"removed-{session}" for session in made}
