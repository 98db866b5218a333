"""Commands in running replicas."""

from __future__ import annotations

import base64
import contextlib
import io
import os
import queue
import select
import shutil
import signal
import sys
import termios
import threading
import time
import tty as terminals
from collections.abc import Iterator
from typing import Annotated, Any, BinaryIO

import typer

from cli import output, place
from cli.api import Api
from cli.errors import INTERNAL, PLATFORM, UNREACHABLE, CliError
from cli.output import Json
from cli.place import Environment, Project, Tenant
from cli.topics import topic

sessions = topic("Sessions: who ran commands in replicas.")
#: Seconds that a question waits for output, and that its answer may take: whoever moves to another network
#: asks anew before he counts as gone.
_WAIT, _PATIENCE = 5, 9.0
_PIECE = 32 * 1024
#: Seconds that the platform may be away before the command gives up, and between signs of life.
_AWAY, _HOLD = 20.0, 2.0
#: Pieces of output that wait for whoever reads standard output.
_WAITING = 16
#: So many Ctrl-C without a terminal end this program, whatever becomes of the command.
_INSISTING = 3
_SIGNALS = {signal.SIGINT: "INT", signal.SIGTERM: "TERM", signal.SIGHUP: "HUP", signal.SIGQUIT: "QUIT"}


class _Session:
    """This side of a session."""

    def __init__(self, where: str, opened: dict[str, Any], out: BinaryIO, err: BinaryIO) -> None:
        self._path = f"{where}/sessions/{opened['id']}"
        self._api, self._typing = Api(patience=_PATIENCE), Api(patience=_PATIENCE)
        self._targets = {"out": out, "err": err}
        self._number = 0
        self._ended = threading.Event()
        self._pieces: queue.Queue[tuple[BinaryIO, bytes] | None] = queue.Queue(_WAITING)
        self._broken = threading.Event()
        #: Why it can't go on: a piece is lost, in one direction or the other.
        self._failed: CliError | None = None

    # What is typed.
    def send(self, piece: dict[str, Any]) -> None:
        """What the other side has no room for yet waits; after a piece that is lost nothing is sent any more."""
        self._number += 1
        since = time.monotonic()
        while not (self._ended.is_set() or self._failed):
            try:
                if self._typing.post(f"{self._path}/input", {"number": self._number, **piece})["taken"]:
                    return
                since = time.monotonic()
            except CliError as error:
                if error.exit not in (UNREACHABLE, PLATFORM) or time.monotonic() - since > _AWAY:
                    self._failed = error
            self._ended.wait(0.1)

    def type(self, changes: queue.SimpleQueue[dict[str, Any]], wake: int, *, terminal: bool) -> None:
        """Standard input until its end, and what is put into ``changes`` with a byte into ``wake``."""
        source = sys.stdin.fileno() if sys.stdin is not None else -1
        watched = [wake, source] if source >= 0 else [wake]
        while not self._ended.is_set():
            ready, _, _ = select.select(watched, [], [], 1.0)
            if wake in ready:
                os.read(wake, 64)
                while not changes.empty():
                    self.send(changes.get())
            if source in ready:
                try:
                    data = os.read(source, _PIECE)
                except OSError:
                    data = b""
                if data:
                    self.send({"data": base64.b64encode(data).decode()})
                    continue
                watched.remove(source)
                self.send({"end": True} if not terminal else {"data": base64.b64encode(b"\x04").decode()})

    # What it prints.
    def follow(self) -> dict[str, Any]:
        """The session once it has ended and all is written. Raises ``CliError``."""
        writer = threading.Thread(target=self._write, daemon=True)
        writer.start()
        try:
            ended = self._read()
            self._pieces.put(None)
            while writer.is_alive():
                writer.join(0.2)
            if self._failed:
                raise self._failed
            return ended
        finally:
            self._ended.set()

    def _read(self) -> dict[str, Any]:
        last, since = 0, time.monotonic()
        while True:
            if self._broken.is_set() or self._failed:
                self._api.post(f"{self._path}/end")
            if self._failed:
                raise self._failed
            full = self._pieces.qsize() > _WAITING // 2
            try:
                answer = self._api.get(
                    f"{self._path}/output", after=last, wait=_WAIT, hold="true" if full else ""
                )
            except CliError as error:
                if error.exit != UNREACHABLE or time.monotonic() - since > _AWAY:
                    raise
                time.sleep(0.5)
                continue
            last, since = answer["last"], time.monotonic()
            for piece in answer["pieces"]:
                self._pieces.put((self._targets[piece["stream"]], base64.b64decode(piece["data"])))
            if answer["ended"]:
                return answer["ended"]
            if full:
                time.sleep(min(_HOLD, 0.2))

    def _write(self) -> None:
        while (piece := self._pieces.get()) is not None:
            target, data = piece
            try:
                target.write(data)
                target.flush()
            except (OSError, ValueError) as error:
                if isinstance(error, OSError):
                    # What is still to be written goes nowhere, also at this program's end.
                    os.dup2(os.open(os.devnull, os.O_WRONLY), target.fileno())
                    if not isinstance(error, BrokenPipeError):
                        self._failed = _unwritable(error)
                self._broken.set()


def _unwritable(error: OSError) -> CliError:
    return CliError(
        f"What the command prints can't be written: {error.strerror}.",
        "It was ended. Make room, or have it written somewhere else.",
        "session-ended",
        INTERNAL,
    )


@contextlib.contextmanager
def _raw(terminal: bool) -> Iterator[None]:
    """The terminal passes every key on, and is as it was afterwards."""
    if not terminal:
        yield
        return
    before = termios.tcgetattr(sys.stdin.fileno())
    try:
        terminals.setraw(sys.stdin.fileno(), termios.TCSADRAIN)  # What was typed already counts.
        yield
    finally:
        termios.tcsetattr(sys.stdin.fileno(), termios.TCSADRAIN, before)


@contextlib.contextmanager
def _signals(changes: queue.SimpleQueue[dict[str, Any]], wake: int, terminal: bool) -> Iterator[None]:
    """Signals become pieces: sizes of the terminal, and without one what would end this program."""

    interrupts = 0

    def passed(number: int, _frame: object) -> None:
        nonlocal interrupts
        interrupts += number == signal.SIGINT
        if interrupts >= _INSISTING and number == signal.SIGINT:
            raise KeyboardInterrupt  # Nothing takes it there.
        size = shutil.get_terminal_size()
        changes.put(
            {"size": [size.lines, size.columns]}
            if number == signal.SIGWINCH
            else {"signal": _SIGNALS[signal.Signals(number)]}
        )
        os.write(wake, b"!")

    wanted = [signal.SIGWINCH] if terminal else list(_SIGNALS)
    before = {number: signal.signal(number, passed) for number in wanted}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def run(
    component: Annotated[str, typer.Argument(metavar="COMPONENT", help="Where.")],
    command: Annotated[
        list[str], typer.Argument(metavar="-- COMMAND...", help="Program and arguments, as they are.")
    ],
    replica: Annotated[
        int, typer.Option(min=0, help="Number of the replica; else the first that is well.")
    ] = 0,
    tty: Annotated[
        bool | None,
        typer.Option("--tty/--no-tty", help="With a terminal; else as standard input is one or not."),
    ] = None,
    tenant: Tenant = "",
    project: Project = "",
    environment: Environment = "production",
    as_json: Json = False,
) -> None:
    """Run a command in a running replica. Its exit code is this one's. With --json: output and end, at the end."""
    at_terminal = sys.stdin is not None and sys.stdin.isatty()
    wanted = at_terminal and sys.stdout.isatty() and not as_json if tty is None else tty
    size = shutil.get_terminal_size()
    where = place.cell(tenant, project, environment).path
    document = {"component": component, "command": command, "tty": wanted, "replica": replica or None}
    opened = Api().post(
        f"{where}/sessions", document | {"rows": max(1, size.lines), "columns": max(1, size.columns)}
    )
    out, err = (io.BytesIO(), io.BytesIO()) if as_json else (sys.stdout.buffer, sys.stderr.buffer)
    session = _Session(where, opened, out, err)
    changes: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
    wake, waker = os.pipe()
    typing = threading.Thread(
        target=session.type, args=(changes, wake), kwargs={"terminal": wanted}, daemon=True
    )
    with _raw(wanted and at_terminal), _signals(changes, waker, wanted and at_terminal):
        typing.start()
        ended = session.follow()
    if isinstance(out, io.BytesIO) and isinstance(err, io.BytesIO):
        said = {
            "output": out.getvalue().decode(errors="replace"),
            "errors": err.getvalue().decode(errors="replace"),
        }
        output.as_json(ended | said)
    if ended["exit_code"] is None:
        raise CliError(
            ended["reason"] or "It isn't known how it ended.",
            "`cyto sessions` lists how commands ended.",
            "session-ended",
            PLATFORM,
            shown=as_json,
        )
    raise typer.Exit(ended["exit_code"] if 0 <= ended["exit_code"] < 256 else 1)


@sessions.command("list")
def list_sessions(
    tenant: Tenant = "", project: Project = "", environment: Environment = "production", as_json: Json = False
) -> None:
    """Who ran commands in replicas, newest first; of the command only its first word is kept."""
    rows = Api().get(f"{place.cell(tenant, project, environment).path}/sessions")
    for row in rows if not as_json else ():
        row |= {
            "where": f"{row['component']}.{row['replica']}",
            "created_by": output.person(row["created_by"]),
            "created_at": output.ago(row["created_at"]),
        }
    columns = {"id": "ID", "where": "WHERE", "program": "PROGRAM", "state": "STATE", "exit_code": "EXIT",
               "reason": "REASON", "created_by": "BY", "created_at": "WHEN"}  # fmt: skip
    output.table(rows, columns, raw=as_json, empty="Nobody has run a command there yet: `cyto exec`.")


@sessions.command("end")
def end_session(
    number: Annotated[int, typer.Argument(metavar="ID", min=1, help="As `cyto sessions` shows it.")],
    tenant: Tenant = "", project: Project = "", environment: Environment = "production", as_json: Json = False,
) -> None:  # fmt: skip
    """End a session: what runs is killed."""
    answer = Api().post(f"{place.cell(tenant, project, environment).path}/sessions/{number}/end")
    output.done(answer, "It is over.", raw=as_json)


def register(app: typer.Typer) -> None:
    app.command("exec")(run)
    app.add_typer(sessions, name="sessions")
