"""The development cluster that a measurement runs on, and what its API server was asked meanwhile.

The one that runs in ``CYTOPLANE_CLUSTER_HOME`` is used and left as it was; if none runs, one is started and
removed again.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
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
_SETTLE_SECONDS = 1.0


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

    @contextlib.contextmanager
    def counted(self) -> Iterator[None]:
        """The server writes them down for this long; its level goes back to none."""
        self._level(_EACH_REQUEST)
        try:
            yield
        finally:
            self._level("0")

    def _level(self, level: str) -> None:
        self._client.put("/debug/flags/v", content=level).raise_for_status()

    def here(self) -> tuple[int, int]:
        """A place in the log, to count from: the file's inode and how far it is."""
        status = self._log.stat()
        return status.st_ino, status.st_size

    def since(self, place: tuple[int, int]) -> Counter[tuple[str, str]]:
        """(Who, verb) → how many, once what was answered last is written."""
        time.sleep(_SETTLE_SECONDS)
        found: Counter[tuple[str, str]] = Counter()
        for line in self._lines(*place):
            if match := _LINE.search(line):
                verb, path, agent = match.groups()
                who = next((who for who, begins in _ASKERS.items() if agent.startswith(begins)), "others")
                if path.partition("?")[0] in ("/readyz", "/debug/flags/v"):
                    continue
                found[who, "discovery" if _discovers(path) else verb] += 1
        return found

    def _lines(self, inode: int, offset: int) -> Iterator[str]:
        # The supervisor keeps one file that is full beside the one being written.
        files = [self._log.with_name(f"{self._log.name}.1"), self._log]
        begun = False
        for file in files:
            if not file.exists():
                continue
            same = file.stat().st_ino == inode
            if not (same or begun or (file is self._log and not self._has(files, inode))):
                continue
            begun = True
            yield from self._read(file, offset if same else 0)

    @staticmethod
    def _has(files: list[Path], inode: int) -> bool:
        return any(file.exists() and file.stat().st_ino == inode for file in files)

    @staticmethod
    def _read(file: Path, offset: int) -> Iterator[str]:
        with file.open(errors="replace") as text:
            text.seek(offset)
            yield from text


def _discovers(path: str) -> bool:
    """Whether it asks what the server offers, not for an object."""
    parts = path.partition("?")[0].strip("/").split("/")
    return parts[0] in ("version", "openapi") or len(parts) <= (2 if parts[0] == "api" else 3)
