"""A run's process on real parts: started at most once, its end told by whoever looks after it then."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dataplane.agent import container, network, once
from dataplane.agent.engines.machine import Machine
from dataplane.agent.podman import Podman, PodmanError
from dataplane.client import ControlPlane
from tests.dataplane.agent.stage import Node, node, until

pytestmark = [pytest.mark.root]

COUNT = """
import sys, time
print("begun", flush=True)
time.sleep({seconds})
sys.exit({code})
"""


@pytest.fixture(scope="module")
def machine() -> Iterator[Node]:
    with node() as made:
        yield made


def wanted(machine: Node, program: str, **process: Any) -> dict[str, Any]:
    return machine.endpoint(program, restart="never", timeout=process.pop("timeout", 60), run=1, **process)


def worker(machine: Node, endpoint: dict[str, Any]) -> once.RunWorker:
    """An agent's worker for the run."""
    made = once.RunWorker(
        machine.config,
        ControlPlane(machine.config.agent_dir, "https://localhost:1"),
        machine.kernel,
        endpoint,
        lambda: machine.history.setdefault(endpoint["id"], []).append(made.status.phase),
    )
    made._backoff = 0.2
    machine.workers.append(made)
    made.start()
    return made


def left(made: once.RunWorker) -> None:
    """The agent dies: nothing of what it looked after ends."""
    made._end = lambda: None  # type: ignore[method-assign]
    made.stop()
    made.thread.join(10)


def removed(machine: Node, endpoint: dict[str, Any]) -> bool:
    """Whether its container is gone; what is busy for a moment, as just after an end, isn't."""
    with contextlib.suppress(PodmanError):
        machine.podman.remove(container.name_of(machine.config, endpoint["id"]))
    return machine.state(endpoint) is None


def note(machine: Node, endpoint: dict[str, Any]) -> Path:
    return once.folder(machine.config) / endpoint["id"]


def begun(machine: Node, endpoint: dict[str, Any]) -> int:
    return machine.output(endpoint).count("begun")


@pytest.mark.capability("one-off", "machine")
def test_a_run_ends_with_its_code_and_its_last_lines_and_is_never_started_again(machine: Node) -> None:
    endpoint = wanted(machine, COUNT.format(seconds=0.3, code=7))
    first = worker(machine, endpoint)
    until(lambda: first.status.phase == "ended", f"{first.status}")
    report = first.report()
    assert (report["exit_code"], report["last_lines"], report["restarts"]) == (7, ["begun"], 0)
    assert machine.history[endpoint["id"]] == ["starting", "healthy", "ended"]
    # Another agent says the same, also when the container is gone.
    left(first)
    until(lambda: removed(machine, endpoint))
    second = worker(machine, endpoint)
    until(lambda: second.status.phase == "ended")
    assert second.report() == report
    assert machine.state(endpoint) is None
    # Its end: nothing is left.
    second.stop()
    second.thread.join(30)
    assert not note(machine, endpoint).exists()
    assert not network.path_of(machine.config, endpoint["id"]).exists()


def test_an_agent_that_was_killed_meanwhile_goes_on_watching(machine: Node) -> None:
    endpoint = wanted(machine, COUNT.format(seconds=2, code=0))
    first = worker(machine, endpoint)
    until(lambda: first.status.phase == "healthy" and begun(machine, endpoint) == 1)
    left(first)
    second = worker(machine, endpoint)
    until(lambda: second.status.phase == "ended")
    assert second.report()["exit_code"] == 0
    assert begun(machine, endpoint) == 1
    second.stop()


def test_what_was_interrupted_is_lost_and_not_started_again(machine: Node) -> None:
    endpoint = wanted(machine, COUNT.format(seconds=60, code=0))
    first = worker(machine, endpoint)
    until(lambda: begun(machine, endpoint) == 1)
    left(first)
    # As after the machine was started anew.
    file = note(machine, endpoint)
    file.write_text(json.dumps({**json.loads(file.read_text()), "boot": "another"}))
    second = worker(machine, endpoint)
    until(lambda: second.status.phase == "lost")
    assert "started anew" in second.report()["reason"]
    left(second)
    # As after it died between its note and the start.
    until(lambda: removed(machine, endpoint))
    file.write_text(json.dumps({"boot": once._boot(), "begun": 1.0}))
    third = worker(machine, endpoint)
    until(lambda: third.status.phase == "lost")
    assert "interrupted" in third.report()["reason"]
    third.stop()
    third.thread.join(30)


def test_a_note_that_cant_be_read_starts_nothing(machine: Node) -> None:
    endpoint = wanted(machine, COUNT.format(seconds=0, code=0))
    file = note(machine, endpoint)
    file.parent.mkdir(exist_ok=True)
    file.write_text("{")
    made = worker(machine, endpoint)
    until(lambda: made.status.phase == "lost")
    assert machine.state(endpoint) is None
    made.stop()


def test_what_takes_too_long_is_ended(machine: Node) -> None:
    endpoint = wanted(machine, COUNT.format(seconds=600, code=0), timeout=1, stop_grace=1)
    made = worker(machine, endpoint)
    until(lambda: made.status.phase == "ended")
    assert made.report()["timed_out"] is True
    state = machine.state(endpoint)
    assert state is not None and not state["Running"]
    made.stop()


def test_an_agent_that_was_killed_at_the_end_of_its_time_left_word_of_it(
    machine: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoint = wanted(machine, COUNT.format(seconds=60, code=0), timeout=1)
    name = container.name_of(machine.config, endpoint["id"])

    stop = Podman.stop

    def killed(podman: Podman, whose: str, seconds: int) -> None:
        if whose != name:
            stop(podman, whose, seconds)  # another test's, which is just going
            return
        first._stopping.set()
        raise PodmanError("the agent dies")

    with monkeypatch.context() as patched:
        patched.setattr(Podman, "stop", killed)
        first = worker(machine, endpoint)
        first._end = lambda: None  # type: ignore[method-assign]
        first.thread.join(30)
    machine.podman.stop(name, 1)
    second = worker(machine, endpoint)
    until(lambda: second.status.phase == "ended")
    assert second.report()["timed_out"] is True
    second.stop()


def test_a_clock_that_is_set_ends_nothing(machine: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    endpoint = wanted(machine, COUNT.format(seconds=2, code=0))
    made = worker(machine, endpoint)
    until(lambda: made.status.phase == "healthy")
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + 3600)
    until(lambda: made.status.phase == "ended")
    report = made.report()
    assert (report["exit_code"], report.get("timed_out")) == (0, None)
    made.stop()


def test_a_note_is_on_the_disk_by_its_name_before_anything_starts(
    machine: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    sync, start = os.fsync, Podman.start

    def synced(descriptor: int) -> None:
        done.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        sync(descriptor)

    def started(podman: Podman, name: str) -> None:
        done.append("start")
        start(podman, name)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Podman, "start", started)
    made = worker(machine, wanted(machine, COUNT.format(seconds=0, code=0)))
    until(lambda: made.status.phase == "ended")
    begin = done.index("start")
    assert str(once.folder(machine.config)) in done[:begin]
    made.stop()


def test_a_program_that_isnt_there_is_said_at_once(machine: Node) -> None:
    endpoint = wanted(machine, "")
    endpoint["process"]["command"] = ["no-such-program", "x"]
    made = worker(machine, endpoint)
    until(lambda: made.status.phase == "ended", f"{made.status}")
    assert made.report()["exit_code"] == 127
    assert "no-such-program" in made.report()["reason"]
    made.stop()


def test_the_note_of_what_is_about_to_end_stays(machine: Node) -> None:
    engine = Machine(
        machine.config, ControlPlane(machine.config.agent_dir, "https://localhost:1"), lambda: None
    )
    folder = once.folder(machine.config)
    folder.mkdir(exist_ok=True)
    (folder / "r7").write_text("{}")
    engine.workers["r7"] = None  # type: ignore[assignment]
    engine.tidy({"endpoints": []})
    assert (folder / "r7").exists()
    once.forget(machine.config, [])


def test_notes_that_nobody_asks_about_are_taken_away(machine: Node) -> None:
    folder = once.folder(machine.config)
    folder.mkdir(exist_ok=True)
    for name in ("r1", "r2"):
        (folder / name).write_text("{}")
    once.forget(machine.config, ["r2"])
    assert "r1" not in os.listdir(folder) and "r2" in os.listdir(folder)
    once.forget(machine.config, [])
