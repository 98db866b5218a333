"""A session on its node while the network breaks: a control plane and a command of the test's own."""

from __future__ import annotations

import base64
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from dataplane.agent.commands import Command, session
from dataplane.client import Refused
from tests.dataplane.processes import await_true

BIG = base64.b64encode(b"x" * 1000).decode()


class Control:
    """``asked`` answers a question for input; what is posted is kept."""

    def __init__(self) -> None:
        self.away = threading.Event()
        self.swallows = threading.Event()
        self.refusals: list[int] = []
        self.ends: list[dict[str, Any]] = []
        self.last = 0
        #: What is typed from now on.
        self.typed: list[dict[str, Any]] | None = None

    def _reach(self, timeout: float) -> None:
        if self.swallows.is_set():
            time.sleep(timeout)
            raise httpx.ReadTimeout("nothing comes")
        if self.away.is_set():
            raise httpx.ConnectError("nobody is there")

    def get(self, path: str, *, hold: int, timeout: float = 40.0, **_: Any) -> dict[str, Any]:
        self._reach(timeout)
        time.sleep(0.01)
        if hold:
            return {"last": self.last, "pieces": [], "over": False}
        if self.typed is not None:
            return {"last": self.last, "pieces": self.typed, "over": False}
        self.last += 8
        return {"last": self.last, "pieces": [{"data": BIG}] * 8, "over": False}

    def post(self, path: str, document: dict[str, Any], *, timeout: float = 40.0) -> dict[str, Any]:
        self._reach(timeout)
        if path.endswith("/end"):
            if self.refusals:
                raise Refused("not now", self.refusals.pop())
            self.ends.append(document)
        return {"taken": True}


class Sleeper:
    """A command that reads nothing, and ends when it is killed or told to."""

    def __init__(self) -> None:
        self.over = threading.Event()
        self.code = 137

    def output(self) -> Iterator[tuple[str, bytes]]:
        self.over.wait(30)
        yield from ()

    def wait(self) -> int | None:
        return self.code

    def write(self, data: bytes) -> None:
        self.over.wait(30)
        raise BrokenPipeError

    def close_input(self) -> None: ...

    def resize(self, rows: int, columns: int) -> None: ...

    def signal(self, name: str) -> None: ...

    def kill(self) -> None:
        self.over.set()

    def close(self) -> None: ...


class Stage:
    def __init__(self) -> None:
        self.control, self.command = Control(), Sleeper()
        wanted = Command(1, "r1", ["sleep", "600"], False, (24, 80))
        made = session.Session(self.control, wanted, 60.0, lambda _: self.command)  # type: ignore[arg-type]
        self.session = made
        self.thread = threading.Thread(target=made.run, daemon=True)
        self.thread.start()

    def finish(self) -> None:
        self.thread.join(10)
        assert not self.thread.is_alive()


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    """A session whose seconds are short ones; its input is stuck: the command reads nothing."""
    for name, seconds in (("AWAY_SECONDS", 0.8), ("_SILENCE_SECONDS", 0.3), ("_HOLD_SECONDS", 0.1)):
        monkeypatch.setattr(session, name, seconds)
    monkeypatch.setattr(session, "_END_SECONDS", 0.05)
    made = Stage()
    yield made
    made.command.kill()


@pytest.mark.parametrize("how", ["away", "swallows"])
def test_a_command_is_killed_when_the_control_plane_is_away(stage: Stage, how: str) -> None:
    getattr(stage.control, how).set()
    await_true(stage.command.over.is_set, "it goes on", 4)
    stage.finish()


def test_it_is_killed_also_while_its_input_is_stuck(stage: Stage) -> None:
    # One piece is being typed: the third answer's last ones wait for room.
    await_true(lambda: stage.control.last == 24 and stage.session._input.full(), "there is room", 10)
    stage.control.away.set()
    await_true(stage.command.over.is_set, "it goes on", 4)
    stage.finish()


def test_its_end_is_told_until_the_control_plane_takes_it(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever answers for a web process that is being replaced says 503."""
    monkeypatch.setattr(session, "AWAY_SECONDS", 8)
    stage.control.refusals = [503, 502]
    stage.command.code = 3
    stage.command.over.set()
    stage.finish()
    assert stage.control.ends == [{"exit_code": 3, "reason": ""}]


def test_what_isnt_understood_leaves_nothing_running(stage: Stage) -> None:
    """A control plane of another version, for example."""
    stage.command.signal = lambda name: getattr(signal, f"SIG{name}")  # type: ignore[method-assign,assignment]
    stage.control.typed = [{"signal": "NEVERHEARD"}]
    await_true(stage.command.over.is_set, "it goes on", 4)
    stage.finish()
    assert stage.control.ends == [{"exit_code": None, "reason": "The node failed to follow it."}]
