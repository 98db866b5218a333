"""Talking to the supervisor over its unix socket: every part at once, where its own command goes one by one."""

from __future__ import annotations

import contextlib
import time
import xmlrpc.client
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol

from supervisor.xmlrpc import SupervisorTransport


class Supervised(Protocol):
    """An installation or a development cluster: whatever has a supervisor's socket in ``run``."""

    @property
    def run(self) -> Path: ...


_RESTING = {"STOPPED", "EXITED", "FATAL"}


def _server(config: Supervised) -> Any:
    transport = SupervisorTransport(None, None, f"unix://{config.run}/supervisor.sock")
    return xmlrpc.client.ServerProxy("http://127.0.0.1", transport=transport).supervisor


def states(config: Supervised) -> dict[str, str]:
    """Part → the supervisor's word for it; empty if the supervisor doesn't run."""
    try:
        return {row["name"]: row["statename"] for row in _server(config).getAllProcessInfo()}
    except (OSError, xmlrpc.client.Error):
        return {}


def reload(config: Supervised) -> None:
    """Take new settings: parts that changed or are new are replaced, others go on."""
    server = _server(config)
    added, changed, removed = server.reloadConfig()[0]
    for name in (*changed, *removed):
        server.stopProcessGroup(name)
        server.removeProcessGroup(name)
    for name in (*added, *changed):
        server.addProcessGroup(name)


def start(config: Supervised, names: Iterable[str]) -> None:
    """Ask for parts to run; doesn't wait until they do."""
    server = _server(config)
    for name in names:
        # It runs already, or it failed at once and is tried again.
        with contextlib.suppress(xmlrpc.client.Fault):
            server.startProcess(name, False)


def stop(config: Supervised, names: Iterable[str], seconds: float = 60) -> None:
    """Ask for parts to end, all at once, and wait until they have."""
    server, names = _server(config), set(names)
    for name in names:
        with contextlib.suppress(xmlrpc.client.Fault):
            server.stopProcess(name, False)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = states(config)
        if all(found.get(name, "STOPPED") in _RESTING for name in names):
            return
        time.sleep(0.1)


def shutdown(config: Supervised) -> None:
    """End the supervisor with everything that still runs under it."""
    with contextlib.suppress(OSError, xmlrpc.client.Error):
        _server(config).shutdown()


def pids(config: Supervised) -> dict[str, int]:
    """Part → process id, of those that run."""
    return {row["name"]: row["pid"] for row in _server(config).getAllProcessInfo() if row["pid"]}
