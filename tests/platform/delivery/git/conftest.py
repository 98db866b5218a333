"""Repositories as they really are: git's own binary pushes over HTTP into the application that serves it."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import uvicorn

from delivery.git import hook_server
from delivery.git.asgi import GitApplication
from tests import factories
from tests.factories import World


@dataclass
class Pushed:
    code: int
    output: str


class Clone:
    """Somebody's working copy of a project."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder, self.url = folder, url
        folder.mkdir(parents=True)
        self.git("init", "-q", "--initial-branch=main")

    def git(self, *arguments: str, check: bool = True, data: bytes | None = None) -> str:
        done = self.run(*arguments, data=data)
        assert not check or done.returncode == 0, done.stderr.decode()
        return done.stdout.decode()

    def run(self, *arguments: str, data: bytes | None = None) -> subprocess.CompletedProcess:
        who = {f"GIT_{a}_{b}": "tester" for a in ("AUTHOR", "COMMITTER") for b in ("NAME", "EMAIL")}
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": "/nonexistent",
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_TERMINAL_PROMPT": "0",
            **who,
        }
        command = ["git", "-C", str(self.folder), "-c", "core.protectHFS=false", *arguments]
        return subprocess.run(
            command, env=environment, input=data, capture_output=True, timeout=60, check=False
        )

    def commit(self, message: str = "A change", **files: str) -> str:
        for name, text in files.items():
            (self.folder / name).write_text(text)
        self.git("add", "-A")
        self.git("commit", "-q", "--allow-empty", "-m", message)
        return self.head()

    def head(self) -> str:
        return self.git("rev-parse", "HEAD").strip()

    def tree(self, *entries: tuple[str, str, str]) -> str:
        """A commit of a handmade tree: (mode, name, object); what git's own commands refuse to make."""
        lines = "".join(f"{mode} {_kind(mode)} {name}\t{path}\0" for mode, path, name in entries)
        tree = self.git("mktree", "-z", "--missing", data=lines.encode()).strip()
        commit = self.git("commit-tree", tree, "-m", "handmade").strip()
        self.git("update-ref", "refs/heads/main", commit)
        return commit

    def blob(self, text: str) -> str:
        return self.git("hash-object", "-w", "--stdin", data=text.encode()).strip()

    def push(self, *arguments: str) -> Pushed:
        done = self.run("push", self.url, *(arguments or ("main",)))
        return Pushed(done.returncode, (done.stdout + done.stderr).decode(errors="replace"))


def _kind(mode: str) -> str:
    return {"040000": "tree", "160000": "commit"}.get(mode, "blob")


class Server:
    """The git application behind a real HTTP server, in a thread."""

    def __init__(self) -> None:
        listener = socket.socket()
        listener.bind(("127.0.0.1", 0))
        self.port = listener.getsockname()[1]
        configuration = uvicorn.Config(
            GitApplication(), log_level="error", lifespan="off", timeout_graceful_shutdown=1
        )
        self._server = uvicorn.Server(configuration)
        self._server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]

        def run() -> None:
            asyncio.run(self._server.serve(sockets=[listener]))

        self._thread = threading.Thread(target=run, daemon=True)
        self._thread.start()
        end = time.monotonic() + 10
        while not self._server.started and time.monotonic() < end:
            time.sleep(0.01)
        assert self._server.started

    def stop(self) -> None:
        self._server.should_exit = True
        self._thread.join(15)
        assert not self._thread.is_alive()


class Git:
    """A committed world, a server, and clones of its projects."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.world = World()
        self.project = self.world.project("shop")
        self.server = Server()
        self._clones = 0

    def url(self, secret: str, path: str = "acme/shop.git") -> str:
        return f"http://token:{secret}@127.0.0.1:{self.server.port}/git/{path}"

    def clone(self, role: str = "developer", path: str = "acme/shop.git", secret: str = "") -> Clone:
        self._clones += 1
        secret = secret or factories.bearer(self.world.person(role))
        return Clone(self.folder / f"clone{self._clones}", self.url(secret, path))


@pytest.fixture
def git(transactional_db: None, tmp_path: Path) -> Iterator[Git]:
    served = Git(tmp_path)
    yield served
    served.server.stop()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hook_server, "POLL", 0.02)
