"""Agents that are started, killed and replaced by other versions, and what runs on their node meanwhile.

podman isn't there, so replicas have no processes of their own: their namespaces are the agent's work,
and tests open sockets in them.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from bpf import loader
from bpf.tables import ALLOW, EGRESS, INGRESS
from dataplane import addresses
from dataplane.agent import network
from dataplane.agent.namespaces import run_in
from infra.config import Config
from tests.bpf import conftest as bpf

REPOSITORY = Path(__file__).parents[3]
PARTS = ("bpf", "cells", "dataplane", "infra")
TCP, UDP = socket.IPPROTO_TCP, socket.IPPROTO_UDP
#: name → (number of its address, identity)
REPLICAS = {"alice": (9000, 70001), "bob": (9001, 70002), "carol": (9002, 70003)}
PORT, OTHER = 8080, 8081
SERVICE = 60000
SECONDS = 60.0


@dataclass
class Running:
    """An agent's process."""

    process: subprocess.Popen
    log: Path

    def say(self, command: str) -> str:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().strip()

    def health(self) -> dict[str, Any]:
        return json.loads(self.say("health"))

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(SECONDS)
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()


@dataclass
class Machine:
    """A node with agents that come and go."""

    config: Config
    generation: int = 0
    agent: Running | None = None
    sockets: list[socket.socket] = field(default_factory=list)

    # Agents.
    def start(self, version: Path = REPOSITORY, wait: bool = True) -> Running:
        """An agent of some version of the platform."""
        log = self.config.home / f"agent-{time.monotonic_ns()}.log"
        environment = {
            **os.environ,
            "CYTOPLANE_HOME": str(self.config.home),
            "CYTOPLANE_NET": str(self.config.net),
            # Quick, and which one loads is the subject of other tests.
            "CYTOPLANE_LOADER": "prebuilt",
            "PYTHONPATH": str(version),
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        command = [
            "setpriv",
            "--pdeathsig",
            "KILL",
            "--",
            sys.executable,
            str(Path(__file__).with_name("driver.py")),
        ]
        with log.open("wb") as errors:
            process = subprocess.Popen(
                command, env=environment, cwd=version, text=True,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors,
            )  # fmt: skip
        self.agent = Running(process, log)
        if wait:
            self.ready()
        return self.agent

    def ready(self) -> None:
        assert self.agent is not None and self.agent.process.stdout is not None
        assert self.agent.process.stdout.readline().strip() == "ready", self.agent.log.read_text()[-3000:]

    def kill(self) -> None:
        if self.agent is not None:
            self.agent.kill()
            self.agent = None

    def apply(self, *edges: tuple[str, str, int, int], replicas: Sequence[str] = tuple(REPLICAS)) -> None:
        """Give the agent a desired state with exactly these (consumer, provider, port, protocol)."""
        assert self.agent is not None
        file = self.config.home / "document.json"
        file.write_text(json.dumps(self.document(edges, replicas)))
        assert self.agent.say(f"apply {file}") == "accepted", self.agent.log.read_text()[-3000:]

    def document(self, edges: Sequence[tuple[str, str, int, int]], replicas: Sequence[str]) -> dict[str, Any]:
        self.generation += 1
        identities: dict[str, Any] = {
            str(identity): {"cell": 0, "policy": [], "external": []}
            for identity in (3, 4, 6, *addresses.IDENTITY_BUILDS)
        }
        owners = {}
        services = []
        for name in replicas:
            number, identity = REPLICAS[name]
            identities[str(identity)] = {"cell": 1, "policy": [], "external": []}
            for address in addresses.workload(self.config, number):
                owners[address] = [identity, name]
        for consumer, provider, port, protocol in edges:
            source, target = REPLICAS[consumer][1], REPLICAS[provider][1]
            identities[str(source)]["policy"].append([target, port, protocol, EGRESS, ALLOW, 1])
            identities[str(target)]["policy"].append([source, port, protocol, INGRESS, ALLOW, 1])
        for protocol in (TCP, UDP):
            for port in (PORT, OTHER):
                for service, backend in zip(self.service, self.pair("bob"), strict=True):
                    entry = {"consumer": 0, "address": service, "port": port, "protocol": protocol}
                    services.append({**entry, "backends": [[self.id("bob"), backend, port]]})
        return {
            "generation": self.generation,
            "endpoints": [self.endpoint(name) for name in replicas],
            "boundary": {
                "floor": [], "addresses": owners, "identities": identities, "names": {}, "services": services,
                "gateway": {"routes": [], "clusters": [], "listeners": [], "doors": []},
            },
        }  # fmt: skip

    def endpoint(self, name: str) -> dict[str, Any]:
        number, identity = REPLICAS[name]
        pair = self.pair(name)
        process = {
            "image": "t1/p1@sha256:" + "a" * 64, "command": None, "environment": {}, "stop_grace": 1,
            "probe": {"type": "none", "port": 0, "path": "/", "interval": 1, "timeout": 1, "grace": 1},
            "limits": {"memory": 1 << 26, "cpu": 1, "pids": 64},
        }  # fmt: skip
        labels = {"tenant": "t", "project": "p", "environment": "e", "component": name}
        return {
            "id": self.id(name), "number": number, "identity": identity, "cell": 1, "v4": pair.v4, "v6": pair.v6,
            "state": "run", "process": process, "labels": labels,
        }  # fmt: skip

    # Replicas.
    def id(self, name: str) -> str:
        return f"r{REPLICAS[name][0]}"

    def pair(self, name: str) -> addresses.Pair:
        return addresses.workload(self.config, REPLICAS[name][0])

    @property
    def service(self) -> addresses.Pair:
        return addresses.service(self.config, SERVICE)

    def path(self, name: str) -> Path:
        return network.path_of(self.config, self.id(name))

    def await_replicas(self, *names: str) -> None:
        """Until their namespaces are up."""
        for name in names or tuple(REPLICAS):
            until(partial(self._up, name), f"{name} has no network: {self._said()}")

    def _said(self) -> str:
        return self.agent.log.read_text()[-2000:] if self.agent else ""

    def _up(self, name: str) -> bool:
        link = Path(f"/sys/class/net/{self.config.name}v{REPLICAS[name][0]}/operstate")
        return link.exists() and link.read_text().strip() == "up"

    def serve(self, name: str, *ports: int) -> None:
        """Echo to everybody on these ports by TCP and UDP over both families."""
        for port in ports:
            for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
                made = run_in(self.path(name), partial(listening, kind, port))
                self.sockets.append(made)
                threading.Thread(target=_echo, args=(made, kind), daemon=True).start()

    def open(self, name: str, address: str, port: int, kind: int = socket.SOCK_STREAM) -> socket.socket:
        """A connected socket that has heard an echo."""

        def attempt() -> socket.socket:
            made = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, kind)
            made.settimeout(2)
            made.connect((address, port))
            return made

        made = run_in(self.path(name), attempt)
        self.sockets.append(made)
        assert echoed(made)
        return made

    def reaches(self, name: str, address: str, port: int, kind: int = socket.SOCK_STREAM) -> bool:
        """Whether a new call gets an answer."""
        try:
            made = self.open(name, address, port, kind)
        except (OSError, AssertionError):
            return False
        made.close()
        return True


def until(true: Callable[[], Any], what: str, seconds: float = SECONDS) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, what
        time.sleep(0.01)


def listening(kind: int, port: int) -> socket.socket:
    made = socket.socket(socket.AF_INET6, kind)
    made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.bind(("::", port))
    if kind == socket.SOCK_STREAM:
        made.listen(64)
    return made


def _echo(server: socket.socket, kind: int) -> None:
    with server:
        while True:
            try:
                if kind == socket.SOCK_DGRAM:
                    data, peer = server.recvfrom(2048)
                    server.sendto(data, peer)
                else:
                    threading.Thread(target=_echo_one, args=(server.accept()[0],), daemon=True).start()
            except PermissionError:
                continue
            except OSError:
                return


def _echo_one(connection: socket.socket) -> None:
    with connection:
        try:
            while data := connection.recv(2048):
                connection.sendall(data)
        except OSError:
            return


def echoed(made: socket.socket) -> bool:
    """Whether the other end answers. Late answers to earlier questions are passed over."""
    token = os.urandom(8)
    try:
        made.sendall(token)
        while data := made.recv(2048):
            if token in data:
                return True
    except OSError:
        return False
    return False


class Places(Protocol):
    """Who has namespaces by names."""

    def path(self, name: str, /) -> Path: ...


class Traffic:
    """Keeps asking over sockets that are open, and knocking where nobody may, until it is stopped."""

    def __init__(self, machine: Places, allowed: Sequence[socket.socket], forbidden: Sequence[tuple]) -> None:
        self._machine, self._allowed, self._forbidden = machine, allowed, forbidden
        self._stop = threading.Event()
        self.passed: list[tuple] = []
        self.silences: list[tuple[socket.socket, float]] = []
        self.asked = 0
        self._threads = [threading.Thread(target=self._ask, args=(made,), daemon=True) for made in allowed]
        self._threads += [threading.Thread(target=self._knock, args=(way,), daemon=True) for way in forbidden]

    def __enter__(self) -> Traffic:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(30)

    def _ask(self, made: socket.socket) -> None:
        while not self._stop.wait(0.02):
            begun = time.monotonic()
            if not echoed(made):
                self.silences.append((made, begun))
            self.asked += 1

    def _knock(self, way: tuple[str, str, int, int]) -> None:
        """UDP to a plain address isn't judged by a hook: only what tc lets through arrives."""
        name, address, port, kind = way

        def attempt() -> None:
            with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, kind) as made:
                made.settimeout(0.15)
                while not self._stop.is_set():
                    try:
                        if kind == socket.SOCK_DGRAM:
                            made.sendto(b"knock", (address, port))
                            made.recvfrom(64)
                        else:
                            made.connect((address, port))
                        self.passed.append(way)
                        return
                    except OSError:
                        if kind == socket.SOCK_STREAM:
                            return
                    time.sleep(0.005)

        while not self._stop.wait(0.01):
            run_in(self._machine.path(name), attempt)


@contextmanager
def machine(home: Path) -> Iterator[Machine]:
    """A node without programs at first; afterwards the machine is as it was."""
    config = Config(home=home, net=bpf.APART, agents_port=1)
    bpf.remove(config)
    shutil.rmtree(config.run, ignore_errors=True)
    made = Machine(config)
    try:
        yield made
    finally:
        made.kill()
        for each in made.sockets:
            each.close()
        bpf.remove(config)


def other_version(folder: Path, changes: dict[str, tuple[str, str]]) -> Path:
    """A copy of the platform in which texts of files are replaced: file → (text, other text)."""
    for part in PARTS:
        shutil.copytree(
            REPOSITORY / part,
            folder / part,
            ignore=shutil.ignore_patterns("__pycache__", "*.o"),
            symlinks=True,
        )
    for name, (text, other) in changes.items():
        file = folder / name
        before = file.read_text()
        assert before.count(text) >= 1, f"{name} doesn't hold {text!r}"
        file.write_text(before.replace(text, other))
    return folder


__all__ = ["Machine", "Traffic", "echoed", "loader", "machine", "other_version", "signal", "until"]
