"""A node whose kernel side can't be brought up says why and goes on trying."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from dataplane.agent import unready
from dataplane.agent.kernel import KernelError
from dataplane.client import ControlPlane

FACTS = {"kernel": "x"}


class Recorder(ControlPlane):
    """Keeps what would have been sent."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, "https://localhost:1")
        self.sent: list[tuple[str, Any]] = []

    def enrol(self, name: str, facts: dict[str, Any]) -> None:
        self.sent.append((name, facts))

    def post(self, path: str, document: dict[str, Any], *, timeout: float = 0) -> Any:
        self.sent.append((path, document))
        return None


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    pauses: list[float] = []
    monkeypatch.setattr(unready.time, "sleep", pauses.append)
    return pauses


def failing(*errors: Exception):
    left = list(errors)

    def prepare() -> None:
        if left:
            raise left.pop(0)

    return prepare


def test_each_failure_is_reported_with_its_reason_until_it_works(
    tmp_path: Path, no_pause: list[float]
) -> None:
    control = Recorder(tmp_path / "agent")
    command = subprocess.CalledProcessError(1, ["nft", "-f", "-"], stderr="no such table")
    refused = KernelError("the kernel refuses the program from_workload: R1 unbounded memory access")
    unready.bring_up(failing(refused, command), control, "node-1", FACTS)
    nodes = [document["node"] for path, document in control.sent if path == "/agent/report"]
    assert [node["healthy"] for node in nodes] == [False, False]
    (first,), (second,) = (node["problems"] for node in nodes)
    assert "nothing is started" in first and "R1 unbounded memory access" in first
    assert "nft failed: no such table" in second
    assert ("node-1", FACTS) in control.sent
    assert no_pause == [5.0, 10.0]


def test_a_control_plane_that_is_away_stops_no_attempt(tmp_path: Path, no_pause: list[float]) -> None:
    unready.bring_up(
        failing(*[KernelError("x")] * 8),
        ControlPlane(tmp_path / "agent", "https://localhost:1"),
        "node-1",
        FACTS,
    )
    assert len(no_pause) == 8
    assert max(no_pause) == unready.LONGEST_PAUSE


def test_what_isnt_foreseen_isnt_swallowed(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        unready.bring_up(failing(ZeroDivisionError()), Recorder(tmp_path / "agent"), "node-1", FACTS)
