"""Containers as containerd keeps them, as files that look like them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dataplane.agent.commands import CantEnter, bundles

SANDBOX, NAME = "io.kubernetes.cri.sandbox-id", "io.kubernetes.cri.container-name"


def bundle(folder: Path, container: str, sandbox: str, name: str, pid: int | None) -> None:
    (folder / container).mkdir(parents=True)
    document = {"annotations": {SANDBOX: sandbox, NAME: name}, "process": {"cwd": "/"}}
    (folder / container / "config.json").write_text(json.dumps(document))
    if pid is not None:
        (folder / container / "init.pid").write_text(str(pid))


def test_a_container_is_found_by_its_pod_and_name(tmp_path: Path) -> None:
    bundle(tmp_path, "aa", "s1", "app", 11)
    bundle(tmp_path, "bb", "s2", "verify", 12)
    bundle(tmp_path, "cc", "s2", "app", None)  # it is just being made
    bundle(tmp_path, "dd", "s2", "app", 13)
    (tmp_path / "ee").mkdir()
    found = bundles.find("s2", "app", tmp_path)
    assert (found.id, found.pid, found.specification["process"]) == ("dd", 13, {"cwd": "/"})
    with pytest.raises(CantEnter, match="doesn't run"):
        bundles.find("s3", "app", tmp_path)


def test_without_the_right_to_look_it_is_told_who_gives_it(tmp_path: Path) -> None:
    with pytest.raises(CantEnter, match="operator hasn't allowed it"):
        bundles.find("s1", "app", tmp_path / "nowhere")
