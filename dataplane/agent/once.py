"""A process that is started at most once, whatever happens to the agent and to the machine meanwhile.

A note on disk, written before the start, is what makes it so: where it is and nothing runs, nothing is
started. How it ended is added to it, so that an agent that comes later says the same as the one that saw it.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from dataplane.agent import container, images, logs
from dataplane.agent.podman import PodmanError
from dataplane.agent.replica import ReplicaWorker
from dataplane.client import write_private
from infra.config import Config

#: Seconds between two looks at a process: at its beginning, later.
_OFTEN, _SELDOM, _BEGINNING = 0.1, 0.5, 5.0
#: What shells say of a program that isn't there; what runtimes say then.
NOT_FOUND = 127
_CANT_RUN = ("executable file", "no such file or directory", "permission denied", "exec format error")
_BOOT = Path("/proc/sys/kernel/random/boot_id")


@dataclass
class Note:
    """What is known of a run. ``boot``: of the machine, as it was begun in; ``up``: seconds since then, which no
    clock that is set changes; ``phase`` "" while it goes on."""

    boot: str = ""
    begun: float = 0.0
    up: float = 0.0
    phase: str = ""
    exit_code: int | None = None
    reason: str = ""
    timed_out: bool = False
    last_lines: list[str] = field(default_factory=list)


def folder(config: Config) -> Path:
    return config.agent_dir / "runs"


def read(file: Path) -> Note | None:
    """None if there is none. One that can't be read says that something was begun, and nothing else."""
    try:
        document = json.loads(file.read_bytes())
        known = {each.name for each in fields(Note)}
        return Note(**{key: value for key, value in document.items() if key in known})
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, AttributeError):
        return Note()


def forget(config: Config, wanted: Iterable[str]) -> None:
    """Take away notes of runs that nobody asks about any more."""
    kept = set(wanted)
    with contextlib.suppress(FileNotFoundError):
        for file in folder(config).iterdir():
            if file.name not in kept:
                file.unlink(missing_ok=True)


class RunWorker(ReplicaWorker):
    """Starts a run, once, and says how it ended until it is told to ``stop``."""

    @property
    def _file(self) -> Path:
        return folder(self.config) / self.id

    def _step(self) -> None:
        self._ensure_network()
        note = read(self._file)
        if note is None:
            note = self._begin()
        if note is not None and not note.phase:
            self._follow(note)
        if note is not None and note.phase:
            self._tell(note)
            self._stopping.wait()

    def _begin(self) -> Note | None:
        """Everything up to the start, which can be tried again; None if the node can't isolate it yet."""
        self._ensure_network()
        self._set("starting")
        name = container.name_of(self.config, self.id)
        if self._podman.inspect(name) is None:
            image = images.ensure(self.config, self.control, self._podman, self.endpoint["process"]["image"])
            container.write_hosts(self.config, self.endpoint)
            self._podman.create(container.specification(self.config, self.endpoint, image))
        if self.kernel.distrust:
            self._set("starting", reason=f"the node can't isolate it yet: {self.kernel.distrust}"[:300])
            self._stopping.wait(1.0)
            return None
        if self._stopping.is_set():
            return None
        note = Note(boot=_boot(), begun=time.time(), up=_up())
        try:
            container.open_output(self._podman.init(name))
        except PodmanError as error:
            if not any(word in str(error) for word in _CANT_RUN):
                raise
            note.exit_code = NOT_FOUND
            self._finish(note, "ended", reason=f"its program can't be run: {error}"[:300])
            return note
        self._keep(note)
        self._podman.start(name)
        return note

    def _keep(self, note: Note) -> None:
        self._file.parent.mkdir(mode=0o700, exist_ok=True)
        write_private(self._file, json.dumps(note.__dict__).encode())
        # Its name too has to outlast a power cut before anything is started.
        descriptor = os.open(self._file.parent, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def _follow(self, note: Note) -> None:
        """Until it ends, or has to."""
        name = container.name_of(self.config, self.id)
        self.status.started_at = note.begun
        if note.boot != _boot():
            self._finish(note, "lost", reason="its machine was started anew while it ran")
            return
        limit = float(self.endpoint["process"]["timeout"])
        while not self._stopping.is_set():
            found = self._podman.inspect(name)
            state = (found or {}).get("State", {})
            if found is None or state.get("Status") in ("created", "configured", "initialized"):
                self._finish(note, "lost", reason="its node was interrupted as it began")
                return
            if not state["Running"]:
                self._exited(note, self._settled(name, state))
                return
            self._set("healthy")
            passed = _up() - note.up if note.up else time.time() - note.begun
            if passed > limit:
                # First of all, so that an agent that comes later knows why it ended.
                note.timed_out = True
                self._keep(note)
                self._podman.stop(name, int(self.endpoint["process"]["stop_grace"]))
                self._exited(note, (self._podman.inspect(name) or {"State": {}})["State"])
                return
            self._stopping.wait(_OFTEN if passed < _BEGINNING else _SELDOM)

    def _exited(self, note: Note, state: dict[str, Any]) -> None:
        # The log's writer may be a moment behind the process.
        time.sleep(0.05)
        note.last_lines = logs.last_lines(container.log_path(self.config, self.id))
        note.exit_code = state.get("ExitCode")
        reason = "it ran out of memory" if state.get("OOMKilled") else ""
        self._finish(note, "ended", reason=reason)

    def _finish(self, note: Note, phase: str, reason: str = "") -> None:
        if self._stopping.is_set():
            return  # what ends a run that is stopped isn't its own end
        note.phase, note.reason = phase, reason
        self._keep(note)

    def _tell(self, note: Note) -> None:
        self.status.started_at = note.begun or None
        self._set(note.phase, exit_code=note.exit_code, reason=note.reason, last_lines=note.last_lines)

    def _left(self, *, stuck: bool = False) -> None:
        """Nobody calls a run, so nobody waits for its answer; its own sockets end with its namespace."""

    def _end(self) -> None:
        super()._end()
        self._file.unlink(missing_ok=True)

    def report(self) -> dict[str, Any]:
        document = super().report()
        if document["phase"] == "ended" and (note := read(self._file)) is not None and note.timed_out:
            document["timed_out"] = True
        return document


def _up() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _boot() -> str:
    return _BOOT.read_text().strip()
