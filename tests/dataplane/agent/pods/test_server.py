"""The agent's side of the plugin's socket."""

from __future__ import annotations

import json
import os
import socket
import stat
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dataplane.agent.pods import server as module
from dataplane.agent.pods.server import Server

pytestmark = pytest.mark.root


class Desk:
    """A server and how it answers."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "run" / "cni.sock"
        self.questions: list[dict[str, Any]] = []
        self.refused: str | None = None
        self.server = Server(self.path, self.answer)

    def answer(self, question: dict[str, Any]) -> str | None:
        self.questions.append(question)
        if question.get("command") == "fail":
            raise RuntimeError("broken")
        return self.refused

    def ask(self, text: bytes) -> Any:
        with socket.socket(socket.AF_UNIX) as call:
            call.settimeout(10)
            call.connect(str(self.path))
            call.sendall(text)
            call.shutdown(socket.SHUT_WR)
            said = b""
            while piece := call.recv(4096):
                said += piece
        return json.loads(said) if said else None


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    made = Desk(tmp_path)
    made.server.start()
    yield made
    made.server.close()


def test_a_question_gets_an_answer_and_a_failure_is_a_refusal(desk: Desk) -> None:
    assert desk.ask(b'{"command": "ADD"}') == {"allowed": True}
    desk.refused = "no such replica"
    assert desk.ask(b'{"command": "ADD"}') == {"refused": "cytoplane: no such replica"}
    assert desk.ask(b'{"command": "fail"}') == {"refused": "cytoplane: the node's agent failed: broken"}
    assert desk.ask(b'{"command": "ADD"}') == {"refused": "cytoplane: no such replica"}


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"\xff", b'"x"'])
def test_what_is_no_question_gets_no_answer(desk: Desk, text: bytes) -> None:
    assert desk.ask(text) is None
    assert desk.questions == []
    assert desk.ask(b"{}") == {"allowed": True}


def test_only_root_can_ask(desk: Desk) -> None:
    status = desk.path.stat()
    assert stat.S_IMODE(status.st_mode) == 0o600 and status.st_uid == 0


def test_an_agent_that_starts_takes_the_place_of_one_that_crashed(desk: Desk, tmp_path: Path) -> None:
    second = Desk(tmp_path)
    second.server.start()
    try:
        assert second.ask(b'{"command": "ADD"}') == {"allowed": True}
        assert len(second.questions) == 1 and desk.questions == []
    finally:
        second.server.close()


def test_more_than_it_can_hold_is_sent_away_and_nobody_hangs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "WORKERS", 2)
    monkeypatch.setattr(module, "WAITING", 1)
    release = threading.Event()

    def answer(question: dict[str, Any]) -> None:
        release.wait(20)

    served = Server(tmp_path / "cni.sock", answer)
    served.start()
    desk = Desk.__new__(Desk)
    desk.path = tmp_path / "cni.sock"
    answers: list[Any] = []
    held = [threading.Thread(target=lambda: answers.append(desk.ask(b"{}"))) for _ in range(3)]
    try:
        for thread in held:
            thread.start()
        # Three are held; the next ones are turned away at once.
        while served._free._value:  # type: ignore[attr-defined]
            os.sched_yield()
        try:
            said = desk.ask(b"{}")
        except OSError:
            said = None  # closed in the caller's face
        assert said is None
    finally:
        release.set()
        for thread in held:
            thread.join()
        served.close()
    assert answers == [{"allowed": True}] * 3
