"""Which sessions there are for this node: asked for all the time, each taken at once."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

import httpx

from dataplane.agent.commands import Command, Process
from dataplane.agent.commands.session import Session
from dataplane.client import ControlPlane, NotEnrolled, Refused

log = logging.getLogger("cytoplane.agent")
POLL_SECONDS = 25
_LONGEST_DELAY = 10.0


class Sessions:
    """``enter`` starts a command; ``clear`` ends those that an agent before this one has left."""

    def __init__(
        self, control: ControlPlane, enter: Callable[[Command], Process], clear: Callable[[], None]
    ) -> None:
        self._control, self._enter, self._clear = control, enter, clear
        self._fresh = True
        self._stopped = threading.Event()

    def stop(self) -> None:
        """Take no more of them."""
        self._stopped.set()

    def follow(self) -> None:
        """Returns after ``stop`` alone."""
        delay = 0.5
        while not self._stopped.is_set():
            try:
                if self._fresh:
                    self._clear()
                self._ask()
                delay = 0.5
                continue
            except (NotEnrolled, httpx.HTTPError, Refused, OSError) as error:
                log.debug("sessions: %s", error)
            except Exception:  # whatever it was, the node mustn't stop asking
                log.exception("following sessions failed")
            self._stopped.wait(delay)
            delay = min(delay * 2, _LONGEST_DELAY)

    def _ask(self) -> None:
        if not self._control.enrolled:
            raise NotEnrolled("not enrolled yet")
        # The first question is answered at once: it only says that this agent has begun anew.
        wait = 0 if self._fresh else POLL_SECONDS
        answer = self._control.get("/agent/sessions", wait=wait, fresh="1" if self._fresh else "")
        self._fresh = False
        for number in (answer or {}).get("sessions", ()):
            self._begin(int(number))

    def _begin(self, number: int) -> None:
        try:
            taken = self._control.post(f"/agent/sessions/{number}/claim", {})
        except Refused as error:
            if error.status == 404:
                return  # It has ended meanwhile.
            raise
        rows, columns = taken["size"]
        command = Command(number, taken["replica"], taken["command"], taken["tty"], (rows, columns))
        session = Session(self._control, command, taken["seconds"], self._enter)
        threading.Thread(target=session.run, name=f"session-{number}", daemon=True).start()
