"""What a node remembers of its pods, and which of them get nothing new."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from dataplane.agent.pods import local
from dataplane.agent.pods.local import Local, Pod


def pod(replica: str = "r1", uid: str = "u1", **more: Any) -> Pod:
    values: dict[str, Any] = {
        "replica": replica,
        "uid": uid,
        "namespace": "cell-7-0123abcd",
        "name": f"{replica}-x",
        "container": f"c-{replica}",
        "netns": "/nowhere",
        "inode": 1,
        "ifname": "eth0",
        "ifindex": 2**30,
        "identity": 300,
        "translate": True,
        "v4": "10.112.128.5",
        "v6": "",
        "app": "app",
        "since": 1.0,
    }
    return Pod(**{**values, **more})


class Kernel:
    """Takes and gives up pods; what it was told."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str]] = []

    def take_pod(self, found: Any, own: Any, translate: bool) -> None:
        self.calls.append(("take", found.name))

    def release_pod(self, name: str) -> None:
        self.calls.append(("release", name))

    def backend_left(self, name: str, identity: int, pair: tuple[str, str]) -> None:
        self.calls.append(("left", f"{name} {pair}"))

    def forget_interface(self, ifindex: int) -> None:
        self.calls.append(("forget", str(ifindex)))

    def forget_pods(self, but: set[int]) -> set[int]:
        self.calls.append(("forget all but", str(sorted(but))))
        return set()


class Found:
    name = "r1"


class Stage:
    def __init__(self, folder: Path) -> None:
        self.changes = 0
        self.file, self.kernel = folder / "pods.json", Kernel()
        self.local = self.another()

    def another(self) -> Local:
        return Local(self.file, self._changed)

    def _changed(self) -> None:
        self.changes += 1


def state(uid: str, *, ready: bool, ending: bool = False) -> dict[str, Any]:
    metadata = {"uid": uid, **({"deletionTimestamp": "2026-01-01T00:00:00Z"} if ending else {})}
    return {"metadata": metadata, "status": {"conditions": [{"type": "Ready", "status": str(ready)}]}}


def serving(local: Local) -> dict[str, bool]:
    return {replica: placement.serving for replica, placement in local.placements("node1").items()}


def test_it_is_on_disk_before_the_kernel_knows_it(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    kept: list[list[str]] = []

    class Looking(Kernel):
        def take_pod(self, found: Any, own: Any, translate: bool) -> None:
            kept.append([entry["replica"] for entry in json.loads(stage.file.read_text())])

    stage.local.add(Looking(), pod(), Found())  # type: ignore[arg-type]
    assert kept == [["r1"]] and stage.changes == 1
    assert stage.file.stat().st_mode & 0o077 == 0


def test_what_the_kernel_refuses_is_forgotten_and_closed(tmp_path: Path) -> None:
    stage = Stage(tmp_path)

    class Refusing(Kernel):
        def take_pod(self, found: Any, own: Any, translate: bool) -> None:
            raise OSError("full")

    kernel = Refusing()
    try:
        stage.local.add(kernel, pod(), Found())  # type: ignore[arg-type]
    except OSError:
        pass
    assert stage.local.pods() == {} and json.loads(stage.file.read_text()) == []
    assert kernel.calls[-1] == ("release", "r1")


def test_a_delayed_farewell_to_an_earlier_sandbox_does_not_end_the_pod_of_now(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    stage.local.add(stage.kernel, pod(container="first"), Found())  # type: ignore[arg-type]
    stage.local.add(stage.kernel, pod(container="second"), Found())  # type: ignore[arg-type]
    assert stage.local.of_container("first") == ""
    assert not stage.local.remove(stage.kernel, "r1", "first")  # type: ignore[arg-type]
    assert stage.local.remove(stage.kernel, "r1", "second")  # type: ignore[arg-type]
    assert stage.local.pods() == {}


def test_what_is_gone_after_a_restart_is_forgotten_by_everybody(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    stage.local.add(stage.kernel, pod(), Found())  # type: ignore[arg-type]
    later, kernel = stage.another(), Kernel()
    later.restore(kernel)  # type: ignore[arg-type]
    assert later.pods() == {} and json.loads(stage.file.read_text()) == []
    assert ("forget", str(2**30)) in kernel.calls
    assert ("left", "r1 ('10.112.128.5', '10.112.128.5')") in kernel.calls


def test_an_agent_that_has_kept_nothing_closes_what_another_one_left(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    stage.local.restore(stage.kernel)  # type: ignore[arg-type]
    assert stage.kernel.calls == [("forget all but", "[]")]
    stage.local.add(stage.kernel, pod(), Found())  # type: ignore[arg-type]
    # Before it is taken: its index may have been another's.
    assert stage.kernel.calls[-2:] == [("forget", str(2**30)), ("take", "r1")]
    later, kernel = stage.another(), Kernel()
    later.restore(kernel)  # type: ignore[arg-type]
    assert kernel.calls[0] == ("forget all but", f"[{2**30}]")


def test_a_damaged_file_is_no_reason_to_fail(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    for text in ("", "{", "[1]", '[{"replica": "r1"}]'):
        stage.file.write_text(text)
        stage.local.restore(stage.kernel)  # type: ignore[arg-type]
        assert stage.local.pods() == {}


def test_a_pod_gets_nothing_new_once_it_ends_or_is_not_ready_any_more(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    stage.local.add(stage.kernel, pod("r1", "u1"), Found())  # type: ignore[arg-type]
    stage.local.add(stage.kernel, pod("r2", "u2"), Found())  # type: ignore[arg-type]
    begun = stage.changes
    # Whether one that was never ready serves is the control plane's to say.
    stage.local.observe([state("u1", ready=False), state("u2", ready=True)])
    assert serving(stage.local) == {"r1": True, "r2": True} and stage.changes == begun
    stage.local.observe([state("u1", ready=True), state("u2", ready=False)])
    assert serving(stage.local) == {"r1": True, "r2": False} and stage.changes == begun + 1
    stage.local.observe([state("u1", ready=True, ending=True), state("u2", ready=True)])
    assert serving(stage.local) == {"r1": False, "r2": True} and stage.changes == begun + 2
    stage.local.observe([state("u1", ready=True, ending=True), state("u2", ready=True)])
    assert stage.changes == begun + 2


def test_what_desired_state_lacks_is_closed_after_a_while_and_opened_where_it_is_wanted_after_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = Stage(tmp_path)
    monkeypatch.setattr(local.network, "find_foreign", lambda name, path, inner: Found())
    stage.local.add(stage.kernel, pod("r1", "u1"), Found())  # type: ignore[arg-type]
    kernel, changes = Kernel(), stage.changes

    def settle(wanted: dict[str, Any], seconds: float) -> None:
        stage.local.settle(kernel, wanted, seconds)  # type: ignore[arg-type]

    settle({"r1": {}}, 0)
    settle({}, 3600)
    # It came back in between: the time begins anew.
    settle({"r1": {}}, 0)
    settle({}, 3600)
    assert kernel.calls == [] and stage.changes == changes
    time.sleep(0.01)
    settle({}, 0.005)
    settle({}, 0.005)
    assert [what for what, _ in kernel.calls] == ["release", "left"] and stage.changes == changes + 1
    assert stage.local.placements("node1") == {} and "r1" in stage.local.pods()
    settle({"r1": {}}, 0.005)
    assert kernel.calls[-1] == ("take", "r1") and stage.changes == changes + 2
    assert stage.local.placements("node1").keys() == {"r1"}


def test_a_pod_that_is_gone_is_still_read_for_a_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = Stage(tmp_path)
    stage.local.add(stage.kernel, pod("r1", "u1"), Found())  # type: ignore[arg-type]
    stage.local.remove(stage.kernel, "r1")  # type: ignore[arg-type]
    assert stage.local.pods() == {} and stage.local.writing()["r1"].uid == "u1"
    stage.local.add(stage.kernel, pod("r1", "u2"), Found())  # type: ignore[arg-type]
    assert stage.local.writing()["r1"].uid == "u2"
    stage.local.remove(stage.kernel, "r1")  # type: ignore[arg-type]
    monkeypatch.setattr(local, "LAST_LINES", 0.0)
    assert stage.local.writing() == {}
