"""The node's edge: the interface that the operator named, guarded with the deny list of desired state.

What is attached enforces by itself. This keeps it as it should be: attached again when the interface
comes back, entries off whose time is over, and gone when the operator names no interface any more.
Nothing that fails here holds up anything else; it is a problem of the node until it works.
"""

from __future__ import annotations

import ipaddress
import json
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from bpf import edge
from dataplane import addresses
from infra.config import Config

log = logging.getLogger("cytoplane.agent")
#: Of those that were refused most, in a report.
OFFENDERS = 10


class Guard:
    """The edge of this node. Calls from any thread."""

    def __init__(self, config: Config, clock: Callable[[], float] = time.time) -> None:
        self._config, self._interface, self._clock = config, config.edge_interface, clock
        self._lock = threading.Lock()
        #: (network, second at which it ends or 0). None: not known yet, so what is in force stays.
        self._denied: list[tuple[str, int]] | None = None
        self._in_force: list[str] | None = None
        self._tables: edge.Tables | None = None
        self._loaded = False
        self._unread: list[str] = []
        self._failed: list[str] = []

    def accept(self, document: Mapping[str, Any]) -> None:
        """Put the list of desired state in force."""
        try:
            entries = document.get("edge", {}).get("denied", [])
            denied = sorted((str(ipaddress.ip_network(network)), int(end)) for network, end in entries)
        except (AttributeError, TypeError, ValueError) as error:
            log.error("the deny list can't be read: %s", error)
            with self._lock:
                self._unread = [f"the deny list can't be read, so the earlier one stays in force: {error}"]
            return
        with self._lock:
            self._denied, self._unread = denied, []
        self.refresh()

    @property
    def problems(self) -> list[str]:
        """What isn't as it should be, as sentences."""
        return [*self._unread, *self._failed]

    def refresh(self) -> None:
        """Make it as it should be. What can't be is in ``problems``."""
        with self._lock:
            self._refresh()

    def _refresh(self) -> None:
        try:
            if self._interface:
                self._guard()
            else:
                edge.remove(self._config)
            self._failed = []
        except (edge.EdgeError, OSError) as error:
            # The sentence is the error's own where it has one.
            text = (
                str(error)
                if isinstance(error, edge.EdgeError)
                else f"the edge isn't as it should be: {error}"
            )
            if self._failed != [text]:
                log.warning("%s", text)
            self._failed = [text]

    def _guard(self) -> None:
        if not self._loaded:
            load(self._config)
            self._loaded = True
        if self._tables is None:
            self._tables = edge.Tables(self._config)
        config, tables = self._config, self._tables
        self._deny(tables)
        tables.set_pace(edge.TCP, config.edge_connections)
        tables.set_ports((port, edge.TCP) for port in _ports(config))
        # Last: it begins with what is in force.
        mode = edge.attach(config, self._interface)
        if mode:
            log.info("the edge is guarded at %s (%s)", self._interface, mode)

    def _deny(self, tables: edge.Tables) -> None:
        if self._denied is None:
            return
        now = self._clock()
        wanted = [network for network, end in self._denied if not end or end > now]
        if wanted != self._in_force:
            self._in_force = None
            tables.set_denied(wanted)
            self._in_force = wanted

    def report(self) -> dict[str, Any] | None:
        """For the node's report; None where nothing is to be guarded."""
        if not self._interface:
            return None
        with self._lock:
            return self._figures()

    def _figures(self) -> dict[str, Any]:
        counters: dict[str, int] = {}
        offenders: list[dict[str, Any]] = []
        guarded = False
        try:
            guarded = edge.attached(self._config) != 0
            if self._tables is not None:
                counters = self._tables.counters()
                offenders = [
                    {"address": o.address, "reason": o.reason, "packets": o.packets, "bytes": o.bytes}
                    for o in self._tables.offenders(OFFENDERS)
                ]
        except OSError as error:
            log.warning("the edge's figures can't be read: %s", error)
        return {
            "interface": self._interface,
            "guarded": guarded,
            "denied": len(self._in_force or []),
            "counters": counters,
            "offenders": offenders,
        }


def _ports(config: Config) -> list[int]:
    """What is open to others: the installation's own ports, on a cluster's node the one between gateways too."""
    own = [config.portal_port, config.apps_port, config.agents_port]
    return own + [addresses.GATEWAYS_PORT] * (config.engine == "kubernetes")


def load(config: Config) -> None:
    """Load in a process of its own: a compiler's memory goes with it. Raises ``EdgeError``."""
    environment = {**os.environ, "CYTOPLANE_HOME": str(config.home), "CYTOPLANE_NET": str(config.net)}
    command = [sys.executable, "-m", "bpf.edge", "load"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    try:
        answer = json.loads(done.stdout.strip().splitlines()[-1])
    except (ValueError, IndexError):
        raise edge.EdgeError(f"the edge isn't guarded: {done.stderr.strip()[-500:]}") from None
    if not answer.get("loaded"):
        raise edge.EdgeError(f"the edge isn't guarded: {answer.get('error')}")
