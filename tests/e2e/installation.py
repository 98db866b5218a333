"""A whole installation for tests, with what a user, an operator and an attacker do to it."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psycopg

from dataplane import addresses
from dataplane.agent import network, podman
from dataplane.registry import names
from infra import control, demo, supervisor
from infra.cluster.settings import Cluster
from infra.config import Config, load
from tests.cluster import cluster_settings
from tests.dataplane.internet import servers4

REPOSITORY = Path(__file__).resolve().parents[2]
#: A number, a folder and ports for each run: of a run's groups, two have an installation at once.
NET = (int(os.environ.get("CYTOPLANE_TEST_NET", "11")) + 3) % 16
_PORTS = 20_000 + 500 * NET
#: The run's cluster, whether there is one or not: its nodes find the installation at its first address.
_CLUSTER: Cluster = cluster_settings()
CONFIG = Config(
    home=Path(f"/var/tmp/cytoplane-e2e-{NET}"),
    net=NET,
    portal_port=_PORTS,
    apps_port=_PORTS + 80,
    agents_port=_PORTS + 443,
    dns_servers=servers4(NET)[0],
    agents_bind="0.0.0.0",
    agents_names=str(_CLUSTER.link(1)[0].ip),
    check_image=names.check_image(5001),
)
#: For work on the tests themselves: leave the installation, and find it again.
KEEP = bool(os.environ.get("CYTOPLANE_E2E_KEEP") or os.environ.get("CYTOPLANE_E2E_HOME"))
#: Likewise: the state directory of an installation with the demonstration in it, used as it is.
GIVEN = os.environ.get("CYTOPLANE_E2E_HOME", "")
ENVIRONMENT = {
    "CYTOPLANE_HOME": str(CONFIG.home),
    "CYTOPLANE_NET": str(NET),
    "CYTOPLANE_PORTAL_PORT": str(CONFIG.portal_port),
    "CYTOPLANE_APPS_PORT": str(CONFIG.apps_port),
    "CYTOPLANE_AGENTS_PORT": str(CONFIG.agents_port),
    # Where tests put a name server; nobody is there otherwise.
    "CYTOPLANE_DNS_SERVERS": CONFIG.dns_servers,
    # Planes on the cluster dial in, and begin pods with the check that their nodes have.
    "CYTOPLANE_AGENTS_BIND": CONFIG.agents_bind,
    "CYTOPLANE_AGENTS_NAMES": CONFIG.agents_names,
    "CYTOPLANE_CHECK_IMAGE": CONFIG.check_image,
}
#: A web application without dependencies: builds in a moment, answers what its source and settings say.
SERVER = """
import http.server, os, socket, time
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        status = 500 if self.path == "/healthz" and {unhealthy!r} else 200
        body = ("{version} " + os.environ.get("GREETING", "")).strip().encode()
        if self.path.startswith("/slow"):
            time.sleep(1)
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *arguments):
        pass
class Server(http.server.ThreadingHTTPServer):
    address_family = socket.AF_INET6
    daemon_threads = False
print("starting {version}", flush=True)
{before}
Server(("::", int(os.environ["PORT"])), Handler).serve_forever()
"""
DECLARATION = """
components:
  web:
    kind: web
    command: exec python server.py
    endpoints:
      http: {{port: 8080, protocol: http, visibility: public, host: {host}}}
    health: {{path: /healthz, grace: {grace}}}
"""


def source(
    host: str,
    version: str,
    *,
    before: str = "",
    unhealthy: bool = False,
    grace: int = 5,
    files: dict[str, str] | None = None,
) -> dict[str, str]:
    """Files of the small web application; more of them by name."""
    return {
        "requirements.txt": "",
        "server.py": SERVER.format(version=version, before=before, unhealthy=unhealthy),
        "cytoplane.yaml": DECLARATION.format(host=host, grace=grace),
        **(files or {}),
    }


@dataclass
class Pushed:
    """What the pusher saw."""

    code: int
    output: str
    seconds: float

    @property
    def accepted(self) -> bool:
        return self.code == 0


class Repository:
    """Somebody's clone of a project."""

    def __init__(self, folder: Path, url: str, token: str) -> None:
        self.folder, self.url = folder, url
        askpass = folder.with_suffix(".askpass")
        askpass.write_text(f"#!/bin/sh\nprintf %s '{token}'\n")
        askpass.chmod(0o700)
        who = {f"GIT_{a}_{b}": "tester" for a in ("AUTHOR", "COMMITTER") for b in ("NAME", "EMAIL")}
        self.environment = {
            **os.environ, **who, "GIT_ASKPASS": str(askpass), "GIT_CONFIG_GLOBAL": "/dev/null",
            "GIT_TERMINAL_PROMPT": "0",
        }  # fmt: skip
        folder.mkdir(parents=True)
        self.git("init", "--quiet", "--initial-branch=main")

    def git(self, *arguments: str) -> str:
        command = ["git", "-C", str(self.folder), *arguments]
        return subprocess.run(
            command, env=self.environment, check=True, capture_output=True, text=True, timeout=60
        ).stdout.strip()

    def commit(self, files: dict[str, str]) -> str:
        """Replace the tree by ``files`` and commit."""
        for path in self.folder.iterdir():
            if path.name != ".git":
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        for name, text in files.items():
            file = self.folder / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message", "A change")
        return self.git("rev-parse", "HEAD")

    def start_push(self, ref: str = "main", *options: str) -> subprocess.Popen:
        command = ["git", "-C", str(self.folder), "push", *options, self.url, ref]
        return subprocess.Popen(
            command,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def push(self, files: dict[str, str] | None = None, ref: str = "main") -> Pushed:
        if files is not None:
            self.commit(files)
        begun = time.monotonic()
        process = self.start_push(ref)
        output, _ = process.communicate(timeout=150)
        return Pushed(process.returncode, output.replace("remote: ", ""), time.monotonic() - begun)


@dataclass
class Installation:
    config: Config
    folder: Path
    accounts: dict[str, str]
    _apis: dict[str, demo.Api] = field(default_factory=dict)
    _counter: int = 0

    def member(self, tenant: str) -> str:
        """The email of a tenant's owner, who has a password from now on."""
        email = demo.TENANTS[tenant][0] if tenant in demo.TENANTS else f"dev@{tenant}.localhost"
        self.accounts.setdefault(email, f"of {tenant}, for tests")
        return email

    def api(self, who: str) -> demo.Api:
        """The REST API as a tenant's member, or as ``admin``."""
        email = demo.ADMIN if who == "admin" else self.member(who)
        if who not in self._apis:
            self._apis[who] = demo.Api(self.config, email, self.accounts[email])
        return self._apis[who]

    def project(self, tenant: str, project: str) -> Repository:
        """A new project and a clone of it."""
        api = self.api(tenant)
        if KEEP and not api.call("POST", f"/tenants/{tenant}/projects", {"slug": project}, ("name-taken",)):
            api.call("DELETE", f"/tenants/{tenant}/projects/{project}?confirm={project}")
            api.call("POST", f"/tenants/{tenant}/projects", {"slug": project})
        elif not KEEP:
            api.call("POST", f"/tenants/{tenant}/projects", {"slug": project})
        return self.clone(tenant, project)

    def clone(self, tenant: str, project: str) -> Repository:
        self._counter += 1
        url = f"http://x@localhost:{self.config.portal_port}/git/{tenant}/{project}.git"
        return Repository(self.folder / f"clone-{self._counter}", url, self.api(tenant).token)

    def cell(self, tenant: str, project: str, path: str, environment: str = "production") -> str:
        return f"/tenants/{tenant}/projects/{project}/environments/{environment}{path}"

    def deployments(self, tenant: str, project: str) -> list[dict[str, Any]]:
        """Newest first."""
        return self.api(tenant).call("GET", self.cell(tenant, project, "/deployments"))

    def get(self, host: str, path: str = "/", **headers: str) -> httpx.Response:
        """A request from outside, through the gateway."""
        return httpx.get(
            f"http://127.0.0.1:{self.config.apps_port}{path}",
            headers={"Host": f"{host}.{self.config.apps_domain}", **headers},
            timeout=10,
        )

    def wait(self, what: Callable[[], Any], seconds: float = 60, every: float = 0.2) -> Any:
        """The first true answer; raises when there is none in time."""
        end, last = time.monotonic() + seconds, None
        while time.monotonic() < end:
            try:
                if value := what():
                    return value
            except (httpx.HTTPError, OSError) as error:
                last = error
            time.sleep(every)
        raise AssertionError(f"it didn't happen within {seconds:.0f} s ({last})")

    # The operator.
    def pids(self, part: str) -> list[int]:
        """A part's process and its descendants, the eldest first."""
        rows = supervisor._server(self.config).getAllProcessInfo()
        first = next(row["pid"] for row in rows if row["name"] == part)
        found = [first] if first else []
        for pid in found:
            try:
                for task in Path(f"/proc/{pid}/task").iterdir():
                    found += map(int, (task / "children").read_text().split())
            except OSError:
                continue
        return found

    def kill(self, part: str) -> None:
        """End a part the hard way, with everything that it started."""
        for pid in self.pids(part):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue

    def healthy(self) -> bool:
        return not any(control.health.problems(self.config).values())

    # The attacker.
    def podman(self, *arguments: str, data: str | None = None) -> subprocess.CompletedProcess:
        root, run = podman.folders(self.config)
        base = ["podman", "--root", str(root), "--runroot", str(run), "--runtime", "runc"]
        return subprocess.run(
            [*base, "--cgroup-manager", "cgroupfs", *arguments],
            env=podman.environment(self.config),
            input=data,
            capture_output=True,
            text=True,
            timeout=150,
            check=False,
        )

    def query(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        """Rows of the installation's database, of what nobody is told otherwise."""
        where = str(self.config.postgres_socket_dir)
        with psycopg.connect(host=where, user="postgres", dbname="cytoplane") as database:
            found = database.execute(statement, values)
            return found.fetchall() if found.description else []

    def replicas(
        self, tenant: str, project: str, component: str = "web", environment: str = "production"
    ) -> list[dict[str, Any]]:
        """Replicas that are wanted, each with its addresses."""
        rows = self.api(tenant).call("GET", self.cell(tenant, project, "/replicas", environment))
        rows = [row for row in rows if row["component"] == component]
        for row in rows:
            found = self.query("SELECT address_index FROM delivery_replica WHERE id = %s", int(row["id"][1:]))
            own = addresses.workload(self.config, found[0][0])
            row |= {"v4": own.v4, "v6": own.v6}
        return rows


def operate(command: str) -> None:
    """`make <command>` of the test's installation."""
    done = subprocess.run(
        [sys.executable, "-m", "infra.control", command],
        env={**os.environ, **ENVIRONMENT},
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
        timeout=400,
    )
    if done.returncode:
        raise AssertionError(f"{command} failed:\n{done.stdout[-4000:]}\n{done.stderr[-2000:]}")


def running(folder: Path) -> Iterator[Installation]:
    """An installation as the demonstration leaves it; removed at the end with all that it put anywhere."""
    if GIVEN:
        given = load(GIVEN)
        yield Installation(given, folder, json.loads((given.home / "demo.json").read_text()))
        return
    if KEEP:
        operate("demo")
        yield Installation(CONFIG, folder, json.loads((CONFIG.home / "demo.json").read_text()))
        return
    operate("purge")
    try:
        operate("demo")
        yield Installation(CONFIG, folder, json.loads((CONFIG.home / "demo.json").read_text()))
    finally:
        operate("purge")
    assert not CONFIG.home.exists()
    assert not CONFIG.bpffs.exists()
    assert not network.listing(CONFIG)


def visible(text: str) -> str:
    """Output without colours and padding of lines."""
    return "\n".join(re.sub(r"\x1b\[[0-9;]*m", "", line).rstrip() for line in text.splitlines())
