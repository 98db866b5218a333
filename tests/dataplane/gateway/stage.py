"""A namespace with an Envoy, applications behind it and clients before it. No kernel programs: the
namespace's loopback has all the addresses."""

from __future__ import annotations

import http.client
import http.server
import json
import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dataplane import addresses
from dataplane.agent.namespaces import run_in
from dataplane.gateway.files import Gateway
from infra.config import Config
from tests.dataplane import processes

NET = int(os.environ.get("CYTOPLANE_TEST_NET", "11"))
CELL = 1
SECONDS = 10.0


@dataclass
class Answer:
    """What came back, and what the application had been asked if it was one that says so."""

    status: int
    text: str
    headers: dict[str, str]

    @property
    def asked(self) -> dict[str, Any]:
        return json.loads(self.text)

    def header(self, name: str) -> list[str]:
        """Values of a header as the application got it."""
        return [value for key, value in self.asked["headers"] if key.lower() == name]


class _Application(http.server.BaseHTTPRequestHandler):
    """Says who answers and what was asked; on some paths it does something else."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if self.path == "/websocket" and self.headers.get("Upgrade", "").lower() == "websocket":
            return self._echo()
        if self.path == "/slow":
            time.sleep(0.3)
        document = {
            "name": self.server.name,  # type: ignore[attr-defined]
            "from": self.client_address[0],
            "path": self.path,
            "headers": list(self.headers.items()),
        }
        body = json.dumps(document).encode()
        self.send_response(404 if self.path == "/missing" else 503 if self.path == "/busy" else 200)
        self.send_header("Content-Length", str(len(body)))
        for name in ("X-Cytoplane-Caller", "X-Cytoplane-Tenant", "X-Forwarded-Client-Cert"):
            self.send_header(name, "the application's lie")
        self.end_headers()
        self.wfile.write(body)
        return None

    def _echo(self) -> None:
        self.send_response(101)
        self.send_header("Upgrade", "websocket")
        self.send_header("Connection", "Upgrade")
        self.end_headers()
        self.close_connection = True
        with suppress(ConnectionError):  # ended by whoever may
            while data := self.connection.recv(1024):
                self.connection.sendall(data.upper())

    def log_message(self, *arguments: Any) -> None:
        pass


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128
    name = ""


@dataclass
class Stage:
    """The namespace and what runs in it."""

    config: Config
    path: Path
    gateway: Gateway
    sockets: list[Any] = field(default_factory=list)

    def application(self, name: str, index: int, port: int = 8000, v6: bool = False) -> list[Any]:
        """An application at the replica address with ``index``; its entry among backends."""
        pair = addresses.workload(self.config, index)
        address = pair.v6 if v6 else pair.v4

        class Server(_Server):
            address_family = socket.AF_INET6 if v6 else socket.AF_INET

        server = run_in(self.path, lambda: Server((address, port), _Application))
        server.name = name
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        self.sockets.append(server)
        return [name, address, port]

    def connection(self, address: str, port: int) -> http.client.HTTPConnection:
        """A connection from inside the namespace."""
        made = http.client.HTTPConnection(address, port, timeout=SECONDS)
        run_in(self.path, made.connect)
        return made

    def north(self) -> str:
        return addresses.workload(self.config, addresses.GATEWAY_NORTH).v4

    def get(
        self,
        host: str = "shop.acme.localhost",
        path: str = "/",
        headers: list[tuple[str, str]] | None = None,
        at: tuple[str, int] | None = None,
    ) -> Answer:
        """A request of its own; to the north unless ``at`` says where."""
        connection = self.connection(*(at or (self.north(), addresses.NORTH_HTTP_PORT)))
        try:
            return ask(connection, host, path, headers)
        finally:
            connection.close()

    def apply(self, document: dict[str, Any], serving: set[str] | None = None) -> list[str]:
        """What Envoy hasn't taken over in time."""
        return self.gateway.wait(self.gateway.apply(document, serving), SECONDS)

    @contextmanager
    def envoy(self) -> Iterator[subprocess.Popen]:
        # As the supervisor starts it.
        command = [
            *processes.envoy_command(self.config.gateway_dir / "bootstrap.json"),
            "--drain-time-s",
            "3",
        ]
        log = self.config.home / "envoy.log"
        with processes.process(command, log, self.gateway.healthy, namespace=self.path) as started:
            yield started


def ask(
    connection: http.client.HTTPConnection,
    host: str,
    path: str = "/",
    headers: list[tuple[str, str]] | None = None,
) -> Answer:
    connection.putrequest("GET", path, skip_host=True, skip_accept_encoding=True)
    connection.putheader("Host", host)
    for name, value in headers or []:
        connection.putheader(name, value)
    connection.endheaders()
    answer = connection.getresponse()
    text = answer.read().decode()
    return Answer(answer.status, text, {name.lower(): value for name, value in answer.getheaders()})


@contextmanager
def stage(name: str = "gwtest") -> Iterator[Stage]:
    """A stage whose Envoy isn't started yet; all of it is gone afterwards."""
    with processes.folder("gateway") as home:
        config = Config(home=home, net=NET, apps_port=17080)
        whole = f"{config.name}-{name}"
        subprocess.run(["ip", "netns", "del", whole], capture_output=True, check=False)
        subprocess.run(["ip", "netns", "add", whole], check=True)
        made = Stage(config, config.netns_dir / whole, Gateway(config))
        try:
            lines = ["link set lo up"]
            indexes = [addresses.GATEWAY_NORTH, *range(512, 520), *range(8192, 8200)]
            for pair in (addresses.workload(config, index) for index in indexes):
                lines += [f"addr add {pair.v4}/32 dev lo", f"addr add {pair.v6}/128 dev lo nodad"]
            batch = "\n".join(lines)
            subprocess.run(["ip", "-n", whole, "-batch", "-"], input=batch, text=True, check=True)
            config.gateway_dir.mkdir()
            shutil.chown(config.gateway_dir, *processes.nobody())
            config.gateway_dir.chmod(0o700)
            made.gateway.start_files()
            yield made
        finally:
            for opened in made.sockets:
                with suppress(OSError):
                    opened.shutdown() if isinstance(opened, _Server) else None
                opened.close() if hasattr(opened, "close") else opened.server_close()
            subprocess.run(["ip", "netns", "del", whole], capture_output=True, check=False)


def cluster(
    config: Config, name: str, backends: list[list[Any]], protocol: str = "http", cell: int = CELL
) -> dict:
    """A cluster as the snapshot has it, whose connections come from the cell's gateway address."""
    source = addresses.cell_gateway(config, cell)
    entry = {"name": name, "protocol": protocol, "backends": backends}
    return {**entry, "source4": source.v4, "source6": source.v6}


def listener(
    config: Config, name: str, port: int, cluster_name: str, caller: str, cell: int = CELL
) -> dict[str, Any]:
    """A connection's own listener."""
    own = addresses.cell_gateway(config, cell)
    return {
        "name": name,
        "address4": own.v4,
        "address6": own.v6,
        "port": port,
        "cluster": cluster_name,
        "caller": caller,
    }


def door(config: Config, name: str, port: int, hosts: list[str]) -> dict[str, Any]:
    """A workload's door to the public hosts that it declares."""
    own = addresses.workload(config, addresses.GATEWAY_NORTH)
    return {"name": name, "address4": own.v4, "address6": own.v6, "port": port, "hosts": hosts}


def document(
    clusters: list[dict],
    routes: dict[str, str],
    listeners: Sequence[dict] = (),
    doors: Sequence[dict] = (),
) -> dict[str, Any]:
    """A snapshot's gateway section; ``routes``: host → cluster."""
    return {
        "clusters": clusters,
        "routes": [{"host": host, "cluster": name} for host, name in routes.items()],
        "listeners": list(listeners),
        "doors": list(doors),
    }
