"""`cyto` against the real API: the control plane behind a real HTTP server, on the tests' database."""

from __future__ import annotations

import asyncio
import io
import json
import os
import pty
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from cli import main
from tests import factories
from tests.factories import World

REPOSITORY = Path(__file__).resolve().parents[3]
#: What an installation or a person could have set, and what would change the answers.
_CLEARED = ("CYTO_TOKEN", "CYTO_TENANT", "CYTO_PROJECT", "CYTO_ENVIRONMENT", "CYTO_DEBUG", "CYTO_DEFAULT_URL")


class Server:
    """The control plane's application in a thread."""

    def __init__(self, application: Any = None) -> None:
        from controlplane.asgi import application as real

        listener = socket.socket()
        listener.bind(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        configuration = uvicorn.Config(
            application or real, log_level="error", lifespan="off", timeout_graceful_shutdown=1
        )
        self._server = uvicorn.Server(configuration)
        self._server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
        self._thread = threading.Thread(target=lambda: asyncio.run(self._server.serve(sockets=[listener])))
        self._thread.start()
        end = time.monotonic() + 15
        while not self._server.started and time.monotonic() < end:
            time.sleep(0.01)
        assert self._server.started

    def stop(self) -> None:
        self._server.should_exit = True
        self._thread.join(20)
        assert not self._thread.is_alive()


@dataclass
class Ran:
    """What a command did."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Standard output, which must be one JSON document and nothing else."""
        return json.loads(self.out)

    @property
    def error(self) -> str:
        """The id of the error that was told on standard error."""
        lines = [line for line in self.err.splitlines() if "error id: " in line]
        return lines[-1].split("error id: ")[1].split(",")[0] if lines else ""


class Cyto:
    """The program, run in this process (fast) or as one of its own (pipes, signals, terminals)."""

    def __init__(self, folder: Path, capture: pytest.CaptureFixture[str]) -> None:
        self.folder, self._capture = folder, capture

    @property
    def settings(self) -> Path:
        return self.folder / "config" / "cytoplane" / "cyto.json"

    def __call__(self, *words: str, data: str = "") -> Ran:
        self._capture.readouterr()
        before, sys.stdin = sys.stdin, io.StringIO(data)
        try:
            code = main.run(list(words))
        finally:
            sys.stdin = before
        captured = self._capture.readouterr()
        assert "Traceback" not in captured.err
        return Ran(code, captured.out, captured.err)

    @property
    def command(self) -> list[str]:
        return [sys.executable, "-m", "cli"]

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "PYTHONPATH": str(REPOSITORY / "platform"), "PYTHONDONTWRITEBYTECODE": "1"}

    def process(self, *words: str, data: str = "", cwd: Path | None = None, **more: str) -> Ran:
        """The same as a process; ``data`` is its standard input."""
        done = subprocess.run(
            [*self.command, *words],
            env={**self.environment, **more},
            cwd=cwd or self.folder,
            input=data,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert "Traceback" not in done.stderr, done.stderr
        return Ran(done.returncode, done.stdout, done.stderr)

    def terminal(self, *words: str, answers: dict[str, str] | None = None) -> Ran:
        """The same on a terminal of 80 columns: when a question appears, its answer is typed."""
        child, descriptor = pty.fork()
        if child == 0:
            os.chdir(self.folder)
            environment = {**self.environment, "COLUMNS": "80", "TERM": "xterm"}
            os.execvpe(self.command[0], [*self.command, *words], environment)
        shown, waiting, end = b"", dict(answers or {}), time.monotonic() + 60
        while time.monotonic() < end:
            if select.select([descriptor], [], [], 0.2)[0]:
                try:
                    piece = os.read(descriptor, 65536)
                except OSError:  # the other side is closed: the program has ended
                    break
                if not piece:
                    break
                shown += piece
            for question in [q for q in waiting if q.encode() in shown]:
                os.write(descriptor, waiting.pop(question).encode())
        os.close(descriptor)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        text = shown.decode().replace("\r\n", "\n")
        assert "Traceback" not in text
        return Ran(code, text, text)


@pytest.fixture
def cyto(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cyto:
    """`cyto` of somebody who has never signed in, outside of any repository."""
    home = tmp_path / "home"
    home.mkdir()
    for name in _CLEARED:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home / "config"))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    monkeypatch.setenv("CYTO_URL", "http://127.0.0.1:1")
    monkeypatch.chdir(home)
    return Cyto(home, capsys)


class Platform:
    """A committed world behind a server, and `cyto` signed in as acme's owner."""

    #: A deployment that failed and the cell it was for, where a test has them.
    failed: int
    cell: Any

    def __init__(self, cyto: Cyto, monkeypatch: pytest.MonkeyPatch) -> None:
        self.world = World()
        self.server = Server()
        self.url = self.server.url
        self.cyto = cyto
        self._environment = monkeypatch
        monkeypatch.setenv("CYTO_URL", self.url)
        self.be("owner")

    def be(self, role: str, tenant: str = "acme", **token: Any) -> None:
        """Act as somebody, by a token in the environment."""
        person = self.world.admin if role == "platform" else self.world.person(role, tenant)
        self._environment.setenv("CYTO_TOKEN", factories.bearer(person, **token))

    def nobody(self) -> None:
        self._environment.delenv("CYTO_TOKEN", raising=False)

    def stand_in(self, project: str = "shop") -> None:
        """From now on commands are about this project of acme."""
        self._environment.setenv("CYTO_TENANT", "acme")
        self._environment.setenv("CYTO_PROJECT", project)


@pytest.fixture
def platform(
    cyto: Cyto, transactional_db: None, installation: Any, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Platform]:
    served = Platform(cyto, monkeypatch)
    yield served
    served.server.stop()
