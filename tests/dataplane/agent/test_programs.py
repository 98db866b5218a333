"""What becomes of a node whose new kernel programs are refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from bpf import loader
from dataplane.agent import programs
from dataplane.agent.kernel import Kernel, KernelError
from dataplane.agent.node import Agent
from dataplane.agent.watch import Watch
from infra.config import Config
from tests.bpf.conftest import REPOSITORY
from tests.bpf.test_loader_refusal import UNSAFE, in_force
from tests.bpf.versions import version
from tests.dataplane.agent.test_watch import detach

pytestmark = pytest.mark.root


@pytest.fixture
def refused_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The agent's loader is that of a version which the kernel refuses."""
    where = version(tmp_path / "version", UNSAFE["reads beyond its context, in one of the last"].change)
    monkeypatch.chdir(where)
    monkeypatch.setenv("PYTHONPATH", str(where))
    monkeypatch.setenv("CYTOPLANE_CACHE", str(tmp_path / "cache"))
    return where


def test_the_earlier_programs_go_on_and_the_node_is_unhealthy_for_that_reason(
    kernel: Config, refused_version: Path
) -> None:
    before = in_force(kernel)
    why = programs.load(kernel)
    assert why.startswith("this version's kernel programs aren't loaded, the earlier ones go on: ")
    assert "refuses the program sockops" in why
    assert in_force(kernel) == before
    agent = Agent(kernel)
    agent._kernel, agent._refused = Kernel(kernel), why
    health = agent.health()
    assert health["healthy"] is False and why in health["problems"]
    assert health["facts"]["loader"] == loader.status(kernel)["loader"]


def test_an_agent_that_has_no_programs_at_all_does_not_start(
    kernel: Config, refused_version: Path, tmp_path: Path
) -> None:
    loader.unload(kernel)
    try:
        with pytest.raises(KernelError, match="refuses the program sockops"):
            programs.load(kernel)
        assert not any(loader.status(kernel).get("hooks", {}).values())
    finally:
        from tests.bpf.conftest import load

        load(kernel)


def test_a_version_that_is_taken_is_no_problem(kernel: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPOSITORY)
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    assert programs.load(kernel) == ""


def test_a_node_whose_hooks_dont_see_calls_says_so_and_isnt_healthy(kernel: Config) -> None:
    agent = Agent(kernel)
    agent._kernel = Kernel(kernel)
    agent.kernel.ensure_platform()
    agent._watch = Watch(kernel, agent.kernel)

    def problems() -> set[str]:
        assert agent._watch is not None
        found = agent.health()
        assert found["healthy"] is False, "podman isn't there either"
        assert set(agent._watch.problems) <= set(found["problems"])
        return set(agent._watch.problems)

    assert problems(), "nothing was tried yet"
    agent._watch.check()
    assert problems() == set()
    detach(kernel, "connect4")
    agent._watch.check()
    assert problems() == {"kernel programs aren't attached: connect4"}
    agent._watch.check()
    assert problems() == set()
    agent.kernel.connections.close()
    agent.kernel._tables.close()
