"""A run of everything is a run of each file once, by groups that don't meet."""

from __future__ import annotations

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
