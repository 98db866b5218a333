"""From `git push` to live: a change of code alone against a change of dependencies."""

from __future__ import annotations

import statistics
import time

from infra.bench.report import show
from infra.bench.world import World

PROCFILE = "web: exec python server.py\n"
SERVER = """
import http.server, os, socket, flask
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers(); self.wfile.write(b"{version}")
class Server(http.server.ThreadingHTTPServer):
    address_family = socket.AF_INET6
Server(("::", int(os.environ["PORT"])), Handler).serve_forever()
"""
ROUNDS = 5


def run() -> None:
    code, dependencies = [], []
    with World() as world:
        world.write("Procfile", PROCFILE)
        world.write("server.py", SERVER.replace("{version}", "first"))
        world.write("requirements.txt", "flask==3.1.3\n")
        world.push()
        for number in range(ROUNDS):
            world.write("server.py", SERVER.replace("{version}", f"code {number}"))
            world.settle()
            begun = time.monotonic()
            world.push()
            code.append(time.monotonic() - begun)
            world.write("requirements.txt", f"flask==3.1.3\n# {number}\n")
            world.settle()
            begun = time.monotonic()
            world.push()
            dependencies.append(time.monotonic() - begun)
    rows = [
        {"push": "A: code only, dependencies cached", "median s": statistics.median(code), "worst s": max(code)},
        {"push": "B: dependencies installed anew", "median s": statistics.median(dependencies),
         "worst s": max(dependencies)},
    ]  # fmt: skip
    show("push", rows, f"{ROUNDS} pushes each, each once the one before has drained; goal for A: 5 s.")
