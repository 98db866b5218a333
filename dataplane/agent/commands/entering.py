"""Commands in containers, each by a process of its own (``enter``) that ends with the agent."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import selectors
import signal as signals
import socket
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dataplane.agent.commands import LARGEST_PIECE, CantEnter, Command
from dataplane.client import write_private
from infra.config import Config

#: Seconds until a command's first instruction.
_BEGIN = 15.0
#: Looks at what a command that has ended printed: as many as the largest pipe that may be made holds pieces.
_LAST_LOOKS = 1024 * 1024 // LARGEST_PIECE + 8
#: Seconds between looks at whether input still has a reader, and of silence after which all is read.
_LOOK = 0.2
_CODE, _ENTER = Path(__file__).resolve().parents[3], "dataplane.agent.commands.enter"


def _mount_of(task: Path) -> str:
    """The mount namespace of a process or thread, "" for one that has ended."""
    try:
        return str((task / "ns/mnt").readlink())
    except OSError:
        return ""


def _belongs(pid: int, session: int, mount: str) -> bool:
    """Whether a process that lives is of this session and in this mount namespace."""
    try:
        # The name of a program may hold anything: brackets, blanks, what isn't text.
        rest = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        over, threads = rest[0] == b"Z", int(rest[17])
        if int(rest[3]) != session or (over and threads < 2):
            return False
        # One whose first thread has ended looks like a process that has, while the others go on.
        tasks = Path(f"/proc/{pid}/task").iterdir() if over else [Path(f"/proc/{pid}")]
        return any(_mount_of(task) == mount for task in tasks)
    except (OSError, IndexError, ValueError):
        return False


def members(session: int, mount: str) -> list[int]:
    """Processes of a session of the kernel's that have this mount namespace: a number alone may be another's by now."""
    pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]
    return [pid for pid in pids if _belongs(pid, session, mount)]


def end_all(session: int, mount: str) -> None:
    """Kill them until none is left; who starts others meanwhile is caught by the next look."""
    for _ in range(50):
        found = members(session, mount)
        if not found:
            return
        for pid in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signals.SIGKILL)
        time.sleep(0.02)


def _folder(config: Config) -> Path:
    """Who runs what, for the agent after this one."""
    folder = config.agent_dir / "commands"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


@dataclass(frozen=True)
class Target:
    """A container that runs: its id, its process's on the node, and what its runtime was told (OCI)."""

    id: str
    pid: int
    specification: dict[str, Any]

    def hold(self) -> int:
        """Its process's folder in /proc, which stays that one's when its number is another's already.

        Raises ``OSError``, or ``CantEnter`` if the number was another's before: control groups have the
        container's id, and nothing in it can leave them.
        """
        folder = os.open(f"/proc/{self.pid}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            with open(os.open("cgroup", os.O_RDONLY, dir_fd=folder)) as file:
                if self.id and self.id in file.read():
                    return folder
            raise CantEnter("The replica doesn't run any more.")
        except BaseException:
            os.close(folder)
            raise


class Entered:
    """A ``commands.Process``."""

    def __init__(self, config: Config, target: Target, command: Command) -> None:
        """Returns once the command runs. Raises ``CantEnter``."""
        self._tty = command.tty
        self._killed = False
        order = {
            "agent": os.getpid(),
            "process": target.specification["process"],
            "seccomp": (target.specification.get("linux") or {}).get("seccomp"),
            "words": command.words,
            "tty": command.tty,
            "size": command.size,
        }
        try:
            process = target.hold()
            try:
                self.mount = os.readlink("ns/mnt", dir_fd=process)
                self._start(order, process)
            finally:
                os.close(process)
        except OSError as error:
            raise CantEnter(f"The replica is gone: {error.strerror}.") from None
        self._file = _folder(config) / str(command.session)
        try:
            write_private(self._file, json.dumps({"pid": self.pid, "mount": self.mount}).encode())
        except OSError as error:
            self.kill()
            self.close()
            raise CantEnter(f"The node can't write down what runs: {error.strerror}.") from None

    def _start(self, order: dict[str, Any], process: int) -> None:
        ours, theirs = socket.socketpair()
        # Pipes are of a user who doesn't exist in there; programs that open /dev/stdout by name need the bits.
        pipes = [] if self._tty else [os.pipe() for _ in range(3)]
        for pair in pipes:
            for end in pair:
                os.fchmod(end, 0o666)
        streams = (pipes[0][0], pipes[1][1], pipes[2][1]) if pipes else (subprocess.DEVNULL,) * 3
        try:
            with theirs:
                self._child = subprocess.Popen(
                    [sys.executable, "-m", _ENTER, str(theirs.fileno()), str(process)],
                    stdin=streams[0],
                    stdout=streams[1],
                    stderr=streams[2],
                    pass_fds=[theirs.fileno(), process],
                    env={"PYTHONPATH": str(_CODE)},
                    cwd="/",
                )
        except BaseException:
            ours.close()
            for pair in pipes:
                for end in pair:
                    os.close(end)
            raise
        self._fds = []
        if pipes:
            for stream in streams:
                os.close(stream)
            self._input = pipes[0][1]
            self._outputs = {pipes[1][0]: "out", pipes[2][0]: "err"}
            self._fds = [self._input, *self._outputs]
        try:
            with ours:
                ours.settimeout(_BEGIN)
                ours.sendall(json.dumps(order).encode() + b"\n")
                self.pid = self._begun(ours)
        except BaseException:
            self._child.kill()
            self._child.wait()
            self._close()
            raise

    def _begun(self, control: socket.socket) -> int:
        """The process's id on the node, once its program runs: then nobody else holds the socket any more."""
        said, pid = b"", 0
        while True:
            try:
                data, fds, _, _ = socket.recv_fds(control, 4096, 1)
            except TimeoutError:
                raise CantEnter("The node is too busy to start it.") from None
            for fd in fds:
                self._input, self._outputs = fd, {fd: "out"}
                self._fds = [fd]
            if not data:
                break
            said += data
        for line in said.splitlines():
            answer = json.loads(line)
            if "error" in answer:
                raise CantEnter(answer["error"])
            pid = answer.get("pid", pid)
        if not pid or not self._fds:
            raise CantEnter("It ended before it began.")
        # Whoever else holds the other end may live on and never read: a thread mustn't wait for that.
        os.set_blocking(self._input, False)
        return pid

    # Output.
    def output(self) -> Iterator[tuple[str, bytes]]:
        """Ends with the command: not before, if it closes its streams, and not with what it may have left
        running, which may print for ever.
        """
        looks = _LAST_LOOKS
        with selectors.DefaultSelector() as selector:
            for fd, stream in self._outputs.items():
                selector.register(fd, selectors.EVENT_READ, stream)
            while looks:
                ended = self._child.poll() is not None
                ready = selector.select(_LOOK)
                for key, _ in ready:
                    try:
                        data = os.read(key.fd, LARGEST_PIECE)
                    except BlockingIOError:
                        continue
                    except OSError:  # A terminal whose other end is closed.
                        data = b""
                    if data:
                        yield key.data, data
                    else:
                        selector.unregister(key.fd)
                if ended:
                    looks = looks - 1 if ready else 0

    def wait(self) -> int | None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self._child.wait(5)
        return None

    # Input.
    def write(self, data: bytes) -> None:
        fd, waiting = self._input, select.poll()
        while data:
            if self._killed or fd < 0:
                raise BrokenPipeError("it is over")
            with contextlib.suppress(BlockingIOError):
                data = data[os.write(fd, data) :]
                continue
            waiting.register(fd, select.POLLOUT)
            waiting.poll(_LOOK * 1000)

    def close_input(self) -> None:
        if not self._tty:
            os.close(self._input)
            self._fds.remove(self._input)
            self._input = -1

    def resize(self, rows: int, columns: int) -> None:
        if self._tty:
            with contextlib.suppress(OSError):
                fcntl.ioctl(self._input, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def signal(self, name: str) -> None:
        """To its group, as a terminal would."""
        # Looking at every process would cost the node more than it costs whoever sends signals.
        if _belongs(self.pid, self.pid, self.mount):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, getattr(signals, f"SIG{name}"))

    def kill(self) -> None:
        self._killed = True
        end_all(self.pid, self.mount)
        self._file.unlink(missing_ok=True)

    def close(self) -> None:
        """After ``kill``, once nobody reads or writes any more."""
        self._child.wait()
        self._close()

    def _close(self) -> None:
        # The numbers may be others' at once.
        fds, self._fds, self._input = self._fds, [], -1
        for fd in fds:
            with contextlib.suppress(OSError):
                os.close(fd)


def clear(config: Config) -> None:
    """End commands that an agent before this one began: nobody follows them any more."""
    for file in _folder(config).iterdir():
        with contextlib.suppress(OSError, ValueError, KeyError):
            kept = json.loads(file.read_text())
            end_all(int(kept["pid"]), kept["mount"])
        file.unlink(missing_ok=True)
