"""Health checks from inside a namespace that nothing else reaches."""

from __future__ import annotations

import contextlib
import http.server
import os
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dataplane.agent.namespaces import cookie, run_in
from dataplane.agent.probes import ProbeFailed, check

pytestmark = pytest.mark.root
NAME = f"cy{os.environ.get('CYTOPLANE_TEST_NET', '11')}-probetest"
OWN = "10.99.0.1"


_DRIPS = {"/continue": b"HTTP/1.1 100 Continue\r\n\r\n", "/letters": b"H"}


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path == "/silent":
            time.sleep(1.5)
            return
        if self.path in _DRIPS:
            # For longer than anybody waits, never silent for long.
            with contextlib.suppress(OSError):
                for _ in range(60):
                    self.wfile.write(_DRIPS[self.path])
                    time.sleep(0.1)
            return
        if self.path == "/garbage":
            self.wfile.write(b"\x00\x01\x02\r\n\r\n")
            return
        if self.path == "/gr%C3%BC%C3%9Fe?a=b%20c&d":
            self.send_response(200)
        elif self.path == "/headers":
            self.send_response(200 if "cytoplane-probe" in self.headers["User-Agent"] else 500)
        else:
            self.send_response(int(self.path[1:]))
        self.send_header("Location", "http://192.0.2.1/")
        self.end_headers()

    def log_message(self, *arguments: Any) -> None:
        pass


@pytest.fixture(scope="module")
def namespace() -> Iterator[Path]:
    subprocess.run(["ip", "netns", "del", NAME], capture_output=True, check=False)
    subprocess.run(["ip", "netns", "add", NAME], check=True)
    for command in ("link set lo up", f"addr add {OWN}/32 dev lo"):
        subprocess.run(["ip", "-n", NAME, *command.split()], check=True)
    path = Path("/run/netns") / NAME
    server = run_in(path, lambda: http.server.ThreadingHTTPServer((OWN, 8080), _Handler))
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield path
    server.shutdown()
    server.server_close()
    subprocess.run(["ip", "netns", "del", NAME], check=True)


def probe(kind: str = "http", path: str = "/200", port: int = 8080, timeout: float = 0.5) -> dict[str, Any]:
    return {"type": kind, "port": port, "path": path, "timeout": timeout}


def failure(namespace: Path, wanted: dict[str, Any], address: str = OWN) -> str:
    with pytest.raises(ProbeFailed) as failed:
        check(namespace, address, wanted)
    assert failed.value.what and failed.value.answer
    return str(failed.value)


@pytest.mark.parametrize("path", ["/200", "/204", "/301", "/302", "/399", "/headers", "/grüße?a=b%20c&d"])
def test_good_answers_and_redirects_pass(namespace: Path, path: str) -> None:
    check(namespace, OWN, probe(path=path))


@pytest.mark.parametrize("status", [400, 401, 404, 500, 503])
def test_other_answers_fail_and_are_named(namespace: Path, status: int) -> None:
    assert failure(namespace, probe(path=f"/{status}")) == f"GET /{status} on port 8080: status {status}"


def test_nothing_there_is_told_from_no_answer(namespace: Path) -> None:
    assert failure(namespace, probe(port=9)) == "GET /200 on port 9: nothing listens there"
    assert failure(namespace, probe("tcp", port=9)) == "TCP port 9: nothing listens there"
    assert failure(namespace, probe(path="/silent")) == "GET /silent on port 8080: no answer within 0.5 s"


@pytest.mark.parametrize("path", sorted(_DRIPS))
def test_an_answer_that_never_ends_is_no_answer(namespace: Path, path: str) -> None:
    begun = time.monotonic()
    probe = {"type": "http", "port": 8080, "path": path, "timeout": 0.5}
    with pytest.raises(ProbeFailed, match="no answer within 0.5 s"):
        check(namespace, OWN, probe)
    # It would have taken six seconds.
    assert time.monotonic() - begun < 4


def test_what_isnt_http_fails(namespace: Path) -> None:
    assert "GET /garbage on port 8080: " in failure(namespace, probe(path="/garbage"))


@pytest.mark.parametrize("path", ["/a b", "/a\r\nX-Y: z", "/\x00", "/é"])
def test_paths_that_would_be_something_else_fail_as_checks(namespace: Path, path: str) -> None:
    failure(namespace, probe(path=path))


def test_a_port_that_accepts_is_enough_for_tcp_and_none_for_none(namespace: Path) -> None:
    check(namespace, OWN, probe("tcp"))
    check(namespace, OWN, probe("none", port=9))


def test_checks_stay_in_the_namespace(namespace: Path) -> None:
    """The same port outside isn't asked, whether or not somebody listens there."""
    with socket.create_server(("127.0.0.1", 0)) as outside:
        port = outside.getsockname()[1]
        assert "nothing listens there" in failure(namespace, probe("tcp", port=port), "127.0.0.1")
    before = cookie(Path("/proc/self/ns/net"))
    assert cookie(namespace) != before
    assert cookie(Path("/proc/self/ns/net")) == before, "the caller never leaves its own"


def test_errors_inside_come_out(namespace: Path, tmp_path: Path) -> None:
    def fail() -> None:
        raise KeyError("inside")

    with pytest.raises(KeyError, match="inside"):
        run_in(namespace, fail)
    with pytest.raises(OSError):
        run_in(tmp_path / "nothing", lambda: None)
    (tmp_path / "file").touch()
    with pytest.raises(OSError):
        run_in(tmp_path / "file", lambda: None)
