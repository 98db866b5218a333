"""One session on the node: a process, what is typed into it and what it prints."""

from __future__ import annotations

import base64
import contextlib
import logging
import queue
import threading
import time
from collections.abc import Callable
from typing import Any

import httpx

from dataplane.agent.commands import LARGEST_PIECE, CantEnter, Command, Process
from dataplane.client import ControlPlane, Refused

log = logging.getLogger("cytoplane.agent")
WAIT_SECONDS = 5
#: So long the control plane may be away before what runs for somebody is ended: he can't be told any more.
AWAY_SECONDS = 15.0
#: And so long one answer may take: a network that swallows everything is noticed in time, too.
_SILENCE_SECONDS = 8.0
#: Seconds until what finds no room is tried again, and between signs of life while input isn't read.
_FULL_SECONDS, _HOLD_SECONDS = 0.05, 1.0
#: Seconds between tries to tell the end.
_END_SECONDS = 1.0
#: The control plane has no such session for this node any more.
_UNKNOWN = (401, 403, 404)
#: Pieces of input that wait for the process.
_WAITING = 16


class Session:
    """Runs a command until it ends, or nobody is there any more. ``run`` returns after that."""

    def __init__(
        self, control: ControlPlane, command: Command, seconds: float, enter: Callable[[Command], Process]
    ) -> None:
        self._control, self._command, self._enter = control, command, enter
        self._until = time.monotonic() + seconds
        self._path = f"/agent/sessions/{command.session}"
        self._over = threading.Event()
        self._ended = threading.Event()
        self._input: queue.Queue[dict[str, Any]] = queue.Queue(_WAITING)
        self._reached = time.monotonic()
        self._why = ""

    def run(self) -> None:
        code, reason = None, ""
        try:
            process = self._enter(self._command)
        except CantEnter as error:
            self._end(None, str(error))
            return
        except Exception:
            log.exception("session %s can't be begun", self._command.session)
            self._end(None, "The node failed to start it.")
            return
        workers = [
            threading.Thread(target=work, args=(process,), name=f"session-{what}", daemon=True)
            for what, work in (("ask", self._ask), ("type", self._type))
        ]
        for worker in workers:
            worker.start()
        try:
            self._print(process)
            code = process.wait()
            reason = "" if code is not None else "It isn't known how it ended."
        except Exception:
            log.exception("session %s failed", self._command.session)
            reason = "The node failed to follow it."
        finally:
            self._ended.set()
            # What still runs has nobody left to read it.
            with contextlib.suppress(Exception):
                process.kill()
        self._end(None if self._why else code, self._why or reason)
        for worker in workers:
            worker.join(10)
        process.close()

    # What it prints.
    def _print(self, process: Process) -> None:
        number = 0
        for stream, data in process.output():
            for start in range(0, len(data), LARGEST_PIECE):
                number += 1
                text = base64.b64encode(data[start : start + LARGEST_PIECE]).decode()
                self._put({"number": number, "stream": stream, "data": text})

    def _put(self, piece: dict[str, Any]) -> None:
        """Until there is room for it; what nobody wants any more is dropped."""
        while not self._over.is_set():
            try:
                answer = self._control.post(f"{self._path}/output", piece, timeout=_SILENCE_SECONDS)
                self._reached = time.monotonic()
                if answer.get("taken"):
                    return
            except Refused as error:
                if error.final or error.status in _UNKNOWN:
                    return
            except (httpx.HTTPError, OSError):
                pass
            self._over.wait(_FULL_SECONDS if time.monotonic() - self._reached < 1 else 0.5)

    # What is typed.
    def _ask(self, process: Process) -> None:
        """What nobody asks for any more is ended, whatever the reason."""
        try:
            self._listen(process)
        except Exception:
            log.exception("session %s can't be followed", self._command.session)
            self._why = "The node failed to follow it."
        finally:
            self._over.set()
            if not self._ended.is_set():
                process.kill()

    def _listen(self, process: Process) -> None:
        """Ask for input. Each question is the node's sign of life, and each answer the other side's."""
        last = 0
        while not (self._ended.is_set() or self._over.is_set()):
            try:
                full = self._input.full()
                # Once a question had no answer the next one is to be answered at once.
                lately = time.monotonic() - self._reached < 1
                answer = self._input_after(last, WAIT_SECONDS if lately else 0, hold=full)
                if answer["over"]:
                    break
                last = answer["last"]
                for piece in answer["pieces"]:
                    self._take(process, piece)
                if full:
                    self._ended.wait(_HOLD_SECONDS)
            except Refused as error:
                if error.status in _UNKNOWN:
                    break
                self._ended.wait(0.5)
            except (httpx.HTTPError, OSError):
                self._ended.wait(0.5)
            if self._must_end():
                break

    def _input_after(self, last: int, wait: float, *, hold: bool) -> dict[str, Any]:
        answer = self._control.get(
            f"{self._path}/input", after=last, wait=wait, hold=int(hold), timeout=_SILENCE_SECONDS
        )
        self._reached = time.monotonic()
        return answer or {"over": True}

    def _must_end(self) -> bool:
        """Whether nobody can be told of it any more."""
        if time.monotonic() - self._reached > AWAY_SECONDS:
            self._why = "The control plane couldn't be reached from the node."
        elif time.monotonic() > self._until:
            self._why = "Its time is over."
        return bool(self._why)

    def _take(self, process: Process, piece: dict[str, Any]) -> None:
        """Signals overtake what is typed; the answer has fewer pieces than fit twice."""
        if signal := piece.get("signal"):
            process.signal(signal)
        elif size := piece.get("size"):
            process.resize(*size)
        else:
            while not (self._ended.is_set() or self._over.is_set() or self._must_end()):
                with contextlib.suppress(queue.Full):
                    self._input.put(piece, timeout=0.5)
                    return
                if time.monotonic() - self._reached > _HOLD_SECONDS:
                    self._sign_of_life()

    def _sign_of_life(self) -> None:
        with contextlib.suppress(Refused, httpx.HTTPError, OSError):
            if self._input_after(0, 0, hold=True)["over"]:
                self._over.set()

    def _type(self, process: Process) -> None:
        while not self._ended.is_set():
            try:
                piece = self._input.get(timeout=0.5)
            except queue.Empty:
                continue
            # Who reads no more gets no more.
            with contextlib.suppress(OSError):
                if data := piece.get("data"):
                    process.write(base64.b64decode(data))
                if piece.get("end"):
                    process.close_input()

    def _end(self, code: int | None, reason: str) -> None:
        document = {"exit_code": code, "reason": reason}
        until = time.monotonic() + AWAY_SECONDS
        while time.monotonic() < until:
            try:
                self._control.post(f"{self._path}/end", document, timeout=_SILENCE_SECONDS)
                return
            except Refused as error:
                if error.final or error.status in _UNKNOWN:
                    return
            except (httpx.HTTPError, OSError):
                pass
            time.sleep(_END_SECONDS)
        log.warning("session %s has ended; the control plane sees it by our silence", self._command.session)
