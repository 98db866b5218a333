"""What measurements need of an installation: a project of their own, its replicas, a load generator."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import psycopg

from dataplane import addresses
from dataplane.agent.network import path_of
from infra import demo
from infra.config import Config, load

TENANT, PROJECT = "acme", "bench"
_DECLARATION = """
components:
  site:
    kind: web
    path: site
    limits: {cpu: 2}
    endpoints:
      http: {port: 8080, protocol: http, visibility: public, host: bench}
  client:
    kind: worker
    path: client
    command: sleep 1000000
    limits: {cpu: 2}
"""


class World:
    """A static site served by nginx, and a client that does nothing: load is made in its namespace."""

    def __init__(self) -> None:
        self.config: Config = load()
        file = self.config.home / "demo.json"
        if not file.exists():
            raise SystemExit("Measurements need a running demonstration: `make demo` first.")
        email = demo.TENANTS[TENANT][0]
        self.api = demo.Api(self.config, email, json.loads(file.read_text())[email])
        self.folder = Path(tempfile.mkdtemp(prefix="cytoplane-bench-"))
        self.work = self.folder / "work"
        self.work.mkdir()
        self.url = f"http://x@{self.config.portal_host}:{self.config.portal_port}/git/{TENANT}/{PROJECT}.git"

    def __enter__(self) -> World:
        self.destroy()
        self.api.call("POST", f"/tenants/{TENANT}/projects", {"slug": PROJECT})
        askpass = self.folder / "askpass"
        askpass.write_text(f"#!/bin/sh\nprintf %s '{self.api.token}'\n")
        askpass.chmod(0o700)
        self.environment = {
            **os.environ, "GIT_ASKPASS": str(askpass), "GIT_CONFIG_GLOBAL": "/dev/null",
            **{f"GIT_{a}_{b}": "bench" for a in ("AUTHOR", "COMMITTER") for b in ("NAME", "EMAIL")},
        }  # fmt: skip
        self.git("init", "--quiet", "--initial-branch=main")
        return self

    def __exit__(self, *_: object) -> None:
        self.destroy()
        shutil.rmtree(self.folder, ignore_errors=True)

    def destroy(self) -> None:
        self.api.call(
            "DELETE", f"/tenants/{TENANT}/projects/{PROJECT}?confirm={PROJECT}", fine=("not-found",)
        )

    def git(self, *arguments: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(self.work), *arguments],
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise SystemExit(f"git {arguments[0]} failed:\n{done.stderr[-3000:]}")
        return done.stderr

    def write(self, name: str, text: str) -> None:
        file = self.work / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def push(self, branch: str = "main") -> str:
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message", "Change")
        return self.git("push", self.url, f"main:{branch}")

    def settle(self, environment: str = "production") -> None:
        """Wait until the last deployment has drained: the next one would wait for it."""
        path = f"/tenants/{TENANT}/projects/{PROJECT}/environments/{environment}/deployments"
        while self.api.call("GET", path)[0]["state"] != "live":
            time.sleep(0.1)

    def deploy_site(self) -> None:
        """The site and its silent client."""
        self.write("cytoplane.yaml", _DECLARATION)
        self.write("site/index.html", "<p>" + "x" * 500)
        self.write("client/requirements.txt", "")
        self.push()

    def replica(self, component: str) -> tuple[str, addresses.Pair, addresses.Pair]:
        """(namespace's name, own addresses, service addresses) of a component's replica."""
        with psycopg.connect(
            host=str(self.config.postgres_socket_dir), user="postgres", dbname="cytoplane"
        ) as database:
            row = database.execute(
                "SELECT r.id, r.address_index, w.service_index FROM delivery_replica r "
                "JOIN projects_workload w ON w.id = r.workload_id JOIN projects_component c ON c.id = w.component_id "
                "JOIN projects_project p ON p.id = c.project_id "
                "WHERE p.slug = %s AND c.name = %s AND r.wanted = 'serve' ORDER BY r.id DESC LIMIT 1",
                [PROJECT, component],
            ).fetchone()
        if row is None:
            raise SystemExit(f"{component} has no replica")
        own, service = addresses.workload(self.config, row[1]), addresses.service(self.config, row[2])
        return f"r{row[0]}", own, service


def tune(config: Config, namespace: str) -> None:
    """Short connections by the ten thousand: ports are free again at once. Ends with the namespace."""
    settings = {"net.ipv4.tcp_max_tw_buckets": "64", "net.ipv4.ip_local_port_range": "1024 65535"}
    for name, value in settings.items():
        command = [
            "nsenter",
            f"--net={path_of(config, namespace)}",
            "--",
            "sysctl",
            "-q",
            "-w",
            f"{name}={value}",
        ]
        subprocess.run(command, check=True)


def load_from(
    config: Config, namespace: str, url: str, *headers: str, seconds: int = 2, connections: int = 8
) -> float:
    """Requests each second that `wrk` gets answered from inside a namespace; fails if any isn't."""
    command = [
        "nsenter",
        f"--net={path_of(config, namespace)}",
        "--",
        "wrk",
        "-t1",
        f"-c{connections}",
        f"-d{seconds}s",
    ]
    for header in headers:
        command += ["-H", header]
    done = subprocess.run([*command, url], capture_output=True, text=True, check=True)
    if re.search(r"Non-2xx|Socket errors: .*[1-9]", done.stdout):
        raise SystemExit(f"not every request was answered:\n{done.stdout}")
    match = re.search(r"Requests/sec:\s+([\d.]+)", done.stdout)
    assert match is not None
    return float(match.group(1))
