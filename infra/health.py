"""Whether each part of an installation does its work, asked the way that its users ask it."""

from __future__ import annotations

import contextlib
import http.client
import socket
import ssl
import subprocess
from collections.abc import Callable

import psycopg
from dnslib import DNSRecord

from dataplane import addresses
from dataplane.agent.namespaces import run_in
from dataplane.agent.network import path_of
from dataplane.agent.podman import Podman
from dataplane.gateway.files import Gateway
from infra import node, supervisor
from infra.config import Config

#: Seconds without a word from a node.
SILENCE = 60
#: As in controlplane.celery, which this can't import: no Django here.
PULSE_KEY = "cytoplane:pulse"


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


def _nodes(config: Config) -> dict[str, str]:
    """Agent and builder of this machine, as the control plane knows them."""
    names = {"agent": config.node, "builder": f"builder-{config.name}"}
    found = dict.fromkeys(names, "it has never reported")
    with psycopg.connect(
        host=str(config.postgres_socket_dir), user="postgres", dbname="cytoplane", connect_timeout=3
    ) as connection:
        rows = connection.execute(
            "SELECT kind, health, extract(epoch FROM now() - last_seen_at) FROM planes_node "
            "WHERE (kind, name) IN (VALUES ('agent', %(agent)s), ('builder', %(builder)s))",
            names,
        )
        for kind, health, silence in rows:
            problem = ""
            if silence is None or silence > SILENCE:
                problem = f"it was last heard of {int(silence)} s ago" if silence else "it was never heard of"
            elif kind == "agent" and not health.get("healthy"):
                problem = "; ".join(map(str, health.get("problems", [])))
                problem = problem or "it hasn't reported its health yet"
            found[kind] = problem
    return found


def _pulse(config: Config) -> str:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(2)
        connection.connect(str(config.redis_socket))
        connection.sendall(f"EXISTS {PULSE_KEY}\r\n".encode())
        done = connection.recv(16).startswith(b":1")
    return "" if done else "no periodic task was done lately: the worker or beat stands still"


def problems(config: Config) -> dict[str, str]:
    """Part → what is wrong with it, "" if nothing is."""
    if config.role == "node":
        return node.problems(config, _resolver)
    checks: dict[str, Callable[[], str]] = {
        "postgres": lambda: _postgres(config),
        "redis": lambda: _redis(config),
        "podman": lambda: "" if Podman(config).alive() else "it doesn't answer",
        "registry": lambda: _registry(config),
        "web": lambda: _http(config.portal_port, "/readyz"),
        "worker": lambda: _pulse(config),
        "beat": lambda: "",
        "control-gateway": lambda: _control_gateway(config),
        "agent": lambda: nodes.get("agent", "it has never reported"),
        "resolver": lambda: _resolver(config),
        "gateway": lambda: "" if Gateway(config).healthy() else "its admin interface doesn't answer",
        "index": lambda: _index(config),
        "builder": lambda: nodes.get("builder", "it has never reported"),
        "loopback": lambda: _loopback(config),
    }
    running = supervisor.states(config)
    nodes: dict[str, str] = {}
    if running.get("postgres") == "RUNNING":
        with contextlib.suppress(psycopg.Error):
            nodes = _nodes(config)
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
