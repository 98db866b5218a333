"""The development cluster that a measurement runs on, and what its API server was asked meanwhile.

The one that runs in ``CYTOPLANE_CLUSTER_HOME`` is used and left as it was; if none runs, one is started and
removed again.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx

from infra import supervisor
from infra.cluster import control
from infra.cluster.settings import Cluster
from infra.kubernetes import binaries

#: From which on the API server writes a line for each request.
_EACH_REQUEST = "3"
_LINE = re.compile(r'httplog\.go:\d+\] "HTTP" verb="(\w+)" URI="([^"]*)".* userAgent="([^"]*)"')
#: Who asks → how its user agent begins.
_ASKERS = {"helm": "Helm/", "driver": "python-httpx/"}
_SETTLE_SECONDS, _FOLLOW_SECONDS = 1.0, 0.2


def number(name: str, default: int) -> int:
    """A setting of a measurement: ``CYTOPLANE_BENCH_<name>``."""
    return int(os.environ.get(f"CYTOPLANE_BENCH_{name}", default))


def until(there: Callable[[], object], seconds: float, complaint: str, pause: float = 0.3) -> None:
    """Wait for something; ends the measurement if it doesn't come."""
    end = time.monotonic() + seconds
    while not there():
        if time.monotonic() > end:
            raise SystemExit(f"{complaint} after {seconds:.0f} s")
        time.sleep(pause)


@contextlib.contextmanager
def running(cluster: Cluster) -> Iterator[None]:
    """A cluster for the time of a measurement; built the first time."""
    if supervisor.states(cluster):
        yield
        return
    try:
        if control.missing():
            binaries.build("cluster")
        control.up(cluster, lambda text: print(f"-----> {text}", file=sys.stderr))
        yield
    finally:
        control.down(cluster, lambda _: None)


class Requests:
    """Counts requests by who asked and with which verb, from the API server's own log: discovery is in it,
    which the server's metrics leave out, and controllers' and kubelets' own are told apart."""

    def __init__(self, log: Path, client: httpx.Client) -> None:
        self._log, self._client = log, client
        self._found: Counter[tuple[str, str]] = Counter()
        self._line, self._reading = b"", threading.Lock()

    @contextlib.contextmanager
    def counted(self) -> Iterator[None]:
        """The server writes them down for this long; its level goes back to none."""
        with self.followed():
            self._level(_EACH_REQUEST)
            try:
                yield
            finally:
                self._level("0")

    @contextlib.contextmanager
    def followed(self) -> Iterator[None]:
        """Read the log for this long, from its end on: of many requests two files don't keep all."""
        done = threading.Event()
        with self._log.open("rb") as self._file:
            self._file.seek(0, os.SEEK_END)
            thread = threading.Thread(target=self._follow, args=(done,))
            thread.start()
            try:
                yield
            finally:
                done.set()
                thread.join()
                self._file.close()

    def _level(self, level: str) -> None:
        self._client.put("/debug/flags/v", content=level).raise_for_status()

    def here(self) -> Counter[tuple[str, str]]:
        """What was counted until now, to count from."""
        self._read()
        return self._found.copy()

    def since(self, before: Counter[tuple[str, str]]) -> Counter[tuple[str, str]]:
        """(Who, verb) → how many, once what was answered last is written."""
        time.sleep(_SETTLE_SECONDS)
        return self.here() - before

    def _follow(self, done: threading.Event) -> None:
        while not done.wait(_FOLLOW_SECONDS):
            self._read()

    def _read(self) -> None:
        with self._reading:
            self._count()
            # Between two there is none for a moment.
            with contextlib.suppress(FileNotFoundError):
                if self._log.stat().st_ino != os.fstat(self._file.fileno()).st_ino:
                    # The supervisor has begun another; nothing is written into this one any more.
                    fresh = self._log.open("rb")
                    self._count()
                    self._file.close()
                    self._file = fresh
                    self._count()

    def _count(self) -> None:
        for piece in self._file:
            self._line += piece
            if not self._line.endswith(b"\n"):
                return  # The rest of it is still to come.
            line, self._line = self._line.decode(errors="replace"), b""
            if match := _LINE.search(line):
                verb, path, agent = match.groups()
                who = next((who for who, begins in _ASKERS.items() if agent.startswith(begins)), "others")
                if path.partition("?")[0] not in ("/readyz", "/debug/flags/v"):
                    self._found[who, "discovery" if _discovers(path) else verb] += 1


def _discovers(path: str) -> bool:
    """Whether it asks what the server offers, not for an object."""
    parts = path.partition("?")[0].strip("/").split("/")
    return parts[0] in ("version", "openapi") or len(parts) <= (2 if parts[0] == "api" else 3)
