"""Whether each part of an installation does its work, asked the way that its users ask it."""

from __future__ import annotations

import http.client
import json
import socket
import ssl
import subprocess
from collections.abc import Callable
from pathlib import Path

from dnslib import DNSRecord

from dataplane import addresses
from dataplane.agent.namespaces import run_in
from dataplane.agent.network import path_of
from dataplane.agent.podman import Podman
from dataplane.gateway.files import Gateway
from infra import install
from infra.config import Config


def states(config: Config, venv: Path) -> dict[str, str]:
    """Part → the supervisor's word for it; empty if the supervisor doesn't run."""
    command = [f"{venv}/bin/supervisorctl", "-c", str(config.home / "supervisor.conf"), "status"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = {}
    for line in done.stdout.splitlines():
        words = line.split()
        if len(words) >= 2 and words[1].isupper():
            found[words[0]] = words[1]
    return found


def _http(port: int, path: str) -> str:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    connection.request("GET", path)
    answer = connection.getresponse()
    body = answer.read().decode(errors="replace")
    return "" if answer.status == 200 else f"status {answer.status}: {body[:120]}"


def _postgres(config: Config) -> str:
    command = ["/usr/lib/postgresql/15/bin/pg_isready", "-q", "-h", str(config.postgres_socket_dir)]
    return "" if subprocess.run(command, check=False).returncode == 0 else "it accepts no connections"


def _redis(config: Config) -> str:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(2)
        connection.connect(str(config.redis_socket))
        connection.sendall(b"PING\r\n")
        return "" if connection.recv(16).startswith(b"+PONG") else "it doesn't answer"


def _registry(config: Config) -> str:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(2)
        connection.connect(str(config.registry_socket))
        connection.sendall(b"GET /v2/ HTTP/1.0\r\nHost: registry\r\n\r\n")
        return "" if b"200" in connection.recv(64) else "it doesn't answer"


def _control_gateway(config: Config) -> str:
    context = ssl.create_default_context(cafile=str(config.secrets / "authority.pem"))
    connection = http.client.HTTPSConnection("localhost", config.agents_port, timeout=5, context=context)
    connection.request("GET", "/authority")
    status = connection.getresponse().status
    return "" if status == 200 else f"status {status}"


def _resolver(config: Config) -> str:
    own = addresses.workload(config, addresses.RESOLVER).v4

    def ask() -> str:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.settimeout(2)
            client.sendto(DNSRecord.question("health").pack(), (own, 53))
            client.recv(512)
        return ""

    return run_in(path_of(config, "resolver"), ask)


def _index(config: Config) -> str:
    proxy = addresses.workload(config, addresses.INDEX_PROXY).v4

    def ask() -> str:
        socket.create_connection((proxy, addresses.INDEX_PROXY_PORT), timeout=2).close()
        return ""

    return run_in(path_of(config, "build-0"), ask)


def _loopback(config: Config) -> str:
    connection = http.client.HTTPConnection("127.0.0.1", config.apps_port, timeout=3)
    connection.request("GET", "/", headers={"Host": "nobody.invalid"})
    status = connection.getresponse().status
    return "" if status == 404 else f"status {status}"


def _nodes(config: Config, venv: Path) -> dict[str, str]:
    """What the control plane knows about this machine's agent and builder."""
    try:
        return json.loads(install.manage(config, venv, config.home / "app", "node_status"))
    except (install.InstallError, ValueError) as error:
        return {"agent": str(error)[-200:], "builder": str(error)[-200:]}


def problems(config: Config, venv: Path) -> dict[str, str]:
    """Part → what is wrong with it, "" if nothing is."""
    checks: dict[str, Callable[[], str]] = {
        "postgres": lambda: _postgres(config),
        "redis": lambda: _redis(config),
        "podman": lambda: "" if Podman(config).alive() else "it doesn't answer",
        "registry": lambda: _registry(config),
        "web": lambda: _http(config.portal_port, "/readyz"),
        "worker": lambda: "",
        "beat": lambda: "",
        "control-gateway": lambda: _control_gateway(config),
        "agent": lambda: nodes.get("agent", "it has never reported"),
        "resolver": lambda: _resolver(config),
        "gateway": lambda: "" if Gateway(config).healthy() else "its admin interface doesn't answer",
        "index": lambda: _index(config),
        "builder": lambda: nodes.get("builder", "it has never reported"),
        "loopback": lambda: _loopback(config),
    }
    running = states(config, venv)
    nodes = _nodes(config, venv) if running.get("postgres") == "RUNNING" else {}
    found = {}
    for name, check in checks.items():
        state = running.get(name, "not running")
        if state != "RUNNING":
            found[name] = state.lower()
            continue
        try:
            found[name] = check()
        except (OSError, http.client.HTTPException, RuntimeError) as error:
            found[name] = str(error) or type(error).__name__
    return found
