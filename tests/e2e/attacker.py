"""An application that runs whatever code it is sent: an attacker's foothold, as its user and as root."""

from __future__ import annotations

import json
import time
from typing import Any

import httpx

from tests.e2e.installation import Installation

_SERVER = """
import http.server, os, socket, subprocess, sys, threading
results = {}
def work(number, code):
    done = subprocess.run([sys.executable, "-"], input=code, capture_output=True, timeout=200)
    results[number] = done.stdout if not done.returncode else b"failed: " + done.stderr[-1500:]
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def answer(self, status, body=b""):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def do_POST(self):
        number = str(len(results) + threading.active_count()) + "-" + os.urandom(4).hex()
        code = self.rfile.read(int(self.headers["Content-Length"]))
        threading.Thread(target=work, args=(number, code)).start()
        self.answer(200, number.encode())
    def do_GET(self):
        if self.path == "/":
            return self.answer(200, str(os.getuid()).encode())
        found = results.get(self.path[1:])
        self.answer(204 if found is None else 200, found or b"")
    def log_message(self, *arguments):
        pass
class Server(http.server.ThreadingHTTPServer):
    address_family = socket.AF_INET6
Server(("::", int(os.environ["PORT"])), Handler).serve_forever()
"""
_DECLARATION = """
components:
  user:
    kind: web
    path: user
    command: exec python server.py
    endpoints:
      http: {port: 8080, protocol: http, visibility: public, host: foothold}
  root:
    kind: web
    path: root
    command: exec python server.py
    endpoints:
      http: {port: 8080, protocol: http, visibility: public, host: rooted}
"""
FILES = {
    "cytoplane.yaml": _DECLARATION,
    "user/requirements.txt": "",
    "user/server.py": _SERVER,
    "root/Dockerfile": "FROM localhost/cytoplane/base:latest\nWORKDIR /app\nCOPY . /app\nUSER 0\n",
    "root/server.py": _SERVER,
}


def files(user: str, root: str) -> dict[str, str]:
    """The same under other public hosts."""
    declared = _DECLARATION.replace("host: foothold}", f"host: {user}}}")
    return {**FILES, "cytoplane.yaml": declared.replace("host: rooted}", f"host: {root}}}")}


class Attacker:
    """Code runs in globex's containers."""

    def __init__(self, installation: Installation, user: str = "foothold", root: str = "rooted") -> None:
        self._installation, self._hosts = installation, (user, root)

    def _url(self) -> str:
        return f"http://127.0.0.1:{self._installation.config.apps_port}"

    def run(self, code: str, *, root: bool) -> Any:
        """The last line that ``code`` prints, as JSON."""
        host = f"{self._hosts[root]}.globex.{self._installation.config.apps_domain}"
        with httpx.Client(base_url=self._url(), headers={"Host": host}, timeout=20) as client:
            number = client.post("/", content=code.encode()).raise_for_status().text
            end = time.monotonic() + 200
            while time.monotonic() < end:
                answer = client.get(f"/{number}")
                if answer.status_code == 200:
                    if answer.text.startswith("failed: "):
                        raise AssertionError(f"the attack itself {answer.text}")
                    return json.loads(answer.text.strip().splitlines()[-1])
                time.sleep(0.2)
        raise AssertionError("the attack didn't end")
