"""Watches whether what enforces isolation is really there, puts back what is missing, and says so.

Every few seconds: are the hooks attached, is each known interface judged by our programs first, did
the programs count failures. Once a minute, and whenever something was wrong, the live test of
``selftest``. While a hook is missing or the live test fails no new workload starts.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable

from bpf import loader
from bpf import sys as bpf
from dataplane.agent import filters
from dataplane.agent.kernel import Kernel
from infra.config import Config

log = logging.getLogger("cytoplane.agent")
ROUND_SECONDS = 5.0
TEST_SECONDS = 60.0
#: For so long the node is unhealthy because of something that happened and is over.
REMEMBERED = 300.0
_HOLDING = "the kernel side is being upgraded: the earlier programs judge until desired state is known"


class Watch:
    """One for an agent; ``check`` is a round, ``start`` makes rounds in a thread."""

    def __init__(self, config: Config, kernel: Kernel, changed: Callable[[], None] = lambda: None) -> None:
        self._config, self._kernel, self._changed = config, kernel, changed
        self._test_due = 0.0
        self._failing: list[str] = ["the self-test hasn't been made yet"]
        self._happened: dict[str, float] = {}
        self._counted: dict[str, int] | None = None

    def start(self) -> None:
        threading.Thread(target=self._run, name="watch", daemon=True).start()

    def _run(self) -> None:
        while True:
            time.sleep(ROUND_SECONDS)
            self.check()

    @property
    def problems(self) -> list[str]:
        """What is wrong now, and what went wrong lately."""
        now = time.monotonic()
        return [*self._failing, *(text for text, until in list(self._happened.items()) if until > now)]

    def check(self) -> None:
        """One round; never raises."""
        before = self.problems
        try:
            self._counters()
            if self._kernel.holding:
                self._failing = [_HOLDING]
            else:
                self._programs()
                self._hooks_and_test()
        except Exception as error:  # an eye that closes is itself a problem
            log.exception("watching the kernel side failed")
            self._failing = [f"the kernel side can't be watched: {error}"]
        self._kernel.distrust = self._failing[0] if self._failing else ""
        if self.problems != before:
            for problem in self.problems:
                if problem not in before:
                    log.error("%s", problem)
            self._changed()

    def _note(self, text: str) -> None:
        self._happened = {t: u for t, u in self._happened.items() if u > time.monotonic()}
        self._happened[text] = time.monotonic() + REMEMBERED

    def _programs(self) -> None:
        places = self._kernel.interfaces()
        for ifindex in filters.repair(self._config, places):
            name = places[ifindex]
            self._note(f"the programs on the interface of {name} had been taken away and were put back")
        self._kernel.hold_neighbours()

    def _counters(self) -> None:
        """Failures that the programs counted since the last round."""
        found = self._kernel.counters()
        before = found if self._counted is None else self._counted
        for name, value in found.items():
            if value > before.get(name, 0):
                # Without numbers: one sentence for each kind.
                self._note(f"the kernel's programs counted failures: {name}")
        self._counted = found

    def _hooks_and_test(self) -> None:
        hooks = loader.status(self._config).get("hooks", {"none is loaded": False})
        off = [name for name, on in hooks.items() if not on]
        if off:
            self._failing = [f"kernel programs aren't attached: {', '.join(off)}"]
            self._test_due = 0.0
            _attach(self._config, off)
            return
        if self._failing or time.monotonic() >= self._test_due:
            self._failing = self._kernel.selftest()
            self._test_due = time.monotonic() + TEST_SECONDS


def _attach(config: Config, names: list[str]) -> None:
    """Put hooks back from their pins. What isn't pinned needs the loader, so it stays a problem."""
    root = os.open(loader.cgroup_root(), os.O_RDONLY | os.O_DIRECTORY)
    try:
        for name in names:
            kind = loader.PROGRAMS.get(name, ("", None))[1]
            try:
                program = bpf.object_get(loader.pins(config) / "programs" / name)
            except OSError:
                continue
            try:
                if kind is not None:
                    bpf.attach_cgroup(root, program, kind)
            finally:
                os.close(program)
    finally:
        os.close(root)
