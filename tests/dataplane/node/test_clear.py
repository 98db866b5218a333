"""A node that the plane leaves is cleared once; that nothing is left is seen on real nodes (tests/infra/charts)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dataplane.agent.pods.leaving import CLEARED, left_file
from dataplane.node import clear
from infra.config import Config


def test_what_fails_is_said_and_tried_again_and_what_is_done_isnt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, tries = Config(home=tmp_path, node_name="node1", engine="kubernetes"), 0
    config.run.mkdir(parents=True)

    def attempt(_: Config) -> None:
        nonlocal tries
        tries += 1
        if tries == 1:
            raise OSError("the device is busy")

    def problems() -> list[str]:
        said = json.loads((config.run / "agent/health.json").read_text())
        assert said["healthy"] is False, "who has left isn't ready for anything"
        return said["problems"]

    monkeypatch.setattr(clear, "clear", attempt)
    assert clear.step(config, done=False) is False
    assert "the device is busy" in problems()[0] and not left_file(config).exists()
    assert clear.step(config, done=False) is True
    assert left_file(config).read_text() == CLEARED
    left_file(config).unlink()
    assert clear.step(config, done=True) is True
    assert tries == 2 and not left_file(config).exists() and "has left" in problems()[0]
