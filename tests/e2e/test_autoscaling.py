"""Replicas follow a real load: what control groups and gateways counted becomes a deployment that adds some.

On the way down it takes five quiet minutes; that is proven where time can pass as it likes
(tests/platform/autoscaling).
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

from tests.cluster import LONGEST
from tests.e2e.engines import Engine

pytestmark = [pytest.mark.live, pytest.mark.root, pytest.mark.timeout(LONGEST)]
#: So long a replica works at most once it was asked to.
SECONDS = 240
_DECLARATION = """
components:
  web:
    kind: web
    command: exec python server.py
    limits: {cpu: 0.1}
    replicas: {min: 1, max: 2, cpu: 30}
    endpoints:
      http: {port: 8080, protocol: http, visibility: public, host: busy}
  calls:
    kind: web
    command: exec python server.py
    replicas: {min: 1, max: 2, requests: 0.3}
    endpoints:
      http: {port: 8080, protocol: http, visibility: public, host: called}
"""
_SERVER = f"""
import http.server, os, socket, threading, time
def work(end):
    while time.monotonic() < end:
        sum(range(1000))
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        if self.path == "/work":
            threading.Thread(target=work, args=(time.monotonic() + {SECONDS},), daemon=True).start()
        body = str(os.getpid()).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *arguments):
        pass
class Server(http.server.ThreadingHTTPServer):
    address_family = socket.AF_INET6
Server(("::", int(os.environ["PORT"])), Handler).serve_forever()
"""
FILES = {"cytoplane.yaml": _DECLARATION, "requirements.txt": "", "server.py": _SERVER}


@contextmanager
def calling(engine: Engine, host: str) -> Iterator[None]:
    """Somebody calls a host again and again meanwhile."""
    over = threading.Event()

    def call() -> None:
        while not over.wait(0.06):
            try:
                engine.get(host)
            except httpx.HTTPError:
                continue

    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def running(engine: Engine) -> dict[str, Any]:
    """Replica → what tells one life of it from the next: when it began, or its pod."""
    found = {row["id"]: row for name in ("web", "calls") for row in engine.replicas("busy", name)}
    lives = {key: (row["restarts"], row["detail"].get("started_at")) for key, row in found.items()}
    if engine.plane is None:
        return lives
    pods = engine.plane.nodes.pods(engine.location("busy"), "cytoplane.dev/replica").values()
    uids = {pod["metadata"]["labels"]["cytoplane.dev/replica"]: pod["metadata"]["uid"] for pod in pods}
    return {key: (*life, uids[key]) for key, life in lives.items()}


@pytest.mark.capability("autoscaling")
def test_a_busy_replica_gets_company_and_isnt_disturbed(engine: Engine) -> None:
    result = engine.push("busy", FILES)
    assert result.accepted, result.output
    engine.installation.wait(lambda: engine.get("busy").status_code == 200)
    before = running(engine)
    assert len(before) == 2
    assert engine.get("busy", "/work").status_code == 200

    def both() -> bool:
        rows = [engine.replicas("busy", name) for name in ("web", "calls")]
        return all(len(found) == 2 and {r["phase"] for r in found} == {"healthy"} for found in rows)

    with calling(engine, "called"):
        engine.installation.wait(both, SECONDS, 1)
    assert before.items() <= running(engine).items()
    rows = engine.call("GET", "busy", "/scale")
    decided = {row["component"]: row["autoscaling"]["change"] for row in rows}
    assert decided["web"].startswith("1 to 2: CPU")
    assert decided["calls"].startswith("1 to 2: requests")

    def scaled(key: str) -> set[str]:
        return {row[key] for row in engine.call("GET", "busy", "/deployments") if row["kind"] == "scale"}

    assert scaled("created_by") == {"autoscaling"}
    # Replicas are well before their gateways have been told of them.
    engine.installation.wait(lambda: scaled("state") == {"live"})
