"""The real resolver in a namespace of its own, and the least of a client that asks it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

from dnslib import QTYPE, DNSRecord

from bpf.tables import Tables
from cells.boundary.model import IDENTITY_RESOLVER, Boundary
from dataplane import addresses
from dataplane.agent import network
from dataplane.agent.namespaces import run_in
from infra.config import Config

REPOSITORY = Path(__file__).resolve().parents[2]
PATIENCE = 2.0
#: How long it may take to start on a busy machine.
START_SECONDS = 20.0


class Resolver:
    def __init__(self, config: Config, tables: Tables, boundary: Boundary) -> None:
        self._config, self._tables = config, tables
        own = addresses.workload(config, addresses.RESOLVER)
        self.addresses = {4: own.v4, 6: own.v6}
        pair = network.Address(own.v4, own.v6, IDENTITY_RESOLVER)
        self.namespace = network.connect(config, tables, "resolver", addresses.RESOLVER, [pair])
        config.resolver_dir.mkdir(parents=True, exist_ok=True)
        askers = {address: identity for address, (identity, _) in boundary.addresses.items()}
        table = config.resolver_dir / "table.json"
        table.write_text(json.dumps({"askers": askers, "names": boundary.names}))
        environment = {**os.environ, "CYTOPLANE_HOME": str(config.home), "CYTOPLANE_NET": str(config.net)}
        command = ["nsenter", f"--net={self.namespace.path}", "--"]
        self._process = subprocess.Popen(
            [*command, sys.executable, "-m", "dataplane.resolver"], env=environment, cwd=REPOSITORY
        )
        end = time.monotonic() + START_SECONDS
        while not run_in(self.namespace.path, self._answers):
            if self._process.poll() is not None or time.monotonic() > end:
                raise RuntimeError("the resolver didn't start")
            time.sleep(0.05)

    def _answers(self) -> bool:
        try:
            return all(_ask(address, "health", 1) is not None for address in self.addresses.values())
        except OSError:
            return False

    def look_up(self, name: str, family: int) -> str:
        """The address of a name over ``family``, asked in the calling thread's namespace; "" if there is none."""
        return look_up(self.addresses[family], name, family)

    def close(self) -> None:
        self._process.kill()
        self._process.wait(timeout=10)
        self._tables.remove_endpoint(self.namespace.ifindex, self.namespace.cookie)
        network.destroy(self._config, "resolver", addresses.RESOLVER)


def look_up(server: str, name: str, family: int) -> str:
    """What a resolver says is the address of a name; "" if there is none."""
    answer = _ask(server, name, QTYPE.A if family == 4 else QTYPE.AAAA)
    return next((str(record.rdata) for record in answer.rr), "") if answer else ""


def _ask(server: str, name: str, kind: int) -> DNSRecord | None:
    with socket.socket(socket.AF_INET6 if ":" in server else socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(PATIENCE)
        client.sendto(DNSRecord.question(name, QTYPE[kind]).pack(), (server, 53))
        try:
            return DNSRecord.parse(client.recv(1500))
        except TimeoutError:
            return None
