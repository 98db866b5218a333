"""The same tests on each engine: an environment of one tenant that is bound to a plane of that engine.

``orbit`` has staging on the installation's machine and production on the cluster, shared first and then
private. Branch, host names and door follow from that; everything else is as on any installation.
"""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import httpx

from infra import demo, supervisor
from tests.dataplane.internet import Internet
from tests.e2e.clusters import ClusterPlane
from tests.e2e.installation import REPOSITORY, Installation, Pushed, Repository

TENANT = "orbit"
#: The plane that every installation has.
MACHINE = "shared"
#: Environment → the branch that it follows.
BRANCHES = {"staging": "staging", "production": "main"}


_IMAGES = """
SELECT release.images FROM delivery_release release
JOIN projects_cell cell ON cell.id = release.cell_id
JOIN projects_project project ON project.id = cell.project_id
JOIN tenants_tenant tenant ON tenant.id = project.tenant_id
JOIN projects_environment environment ON environment.id = cell.environment_id
WHERE tenant.slug = %s AND project.slug = %s AND environment.name = %s AND release.number = %s
"""
#: Only the row of what the plane is present by: its agents on a machine, its controller elsewhere.
_LONG_AGO = """
UPDATE planes_node SET last_seen_at = now() - interval '5 minutes'
WHERE plane_id = (SELECT id FROM planes_plane WHERE name = %s)
"""


@dataclass
class Engine:
    """Where tests of one engine run."""

    name: str
    installation: Installation
    environment: str
    door: str
    #: On a cluster only.
    plane: ClusterPlane | None = None
    _clones: dict[str, Repository] = field(default_factory=dict)

    @property
    def other(self) -> str:
        """The environment on another engine, or for the machine's the one that has none of its own."""
        return next(name for name in BRANCHES if name != self.environment)

    def call(self, method: str, project: str, path: str, document: Any = None, environment: str = "") -> Any:
        """The REST API about a cell, as the tenant's owner."""
        where = self.installation.cell(TENANT, project, path, environment or self.environment)
        return self.installation.api(TENANT).call(method, where, document)

    def cyto(self, project: str, *words: str, **more: Any) -> subprocess.CompletedProcess:
        """The command line, as the tenant's owner."""
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.installation.folder),
            "PYTHONPATH": f"{REPOSITORY / 'platform'}:{REPOSITORY}",
            "CYTO_URL": self.installation.config.portal_url,
            "CYTO_TOKEN": self.installation.api(TENANT).token,
            "CYTO_TENANT": TENANT,
            "CYTO_PROJECT": project,
            "CYTO_ENVIRONMENT": self.environment,
        }
        command = [sys.executable, "-m", "cli", *words]
        how = {"capture_output": True, "text": True, "timeout": 300, **more}
        return subprocess.run(command, env=environment, cwd=self.installation.folder, **how)

    def project(self, project: str) -> Repository:
        """A clone of the project, which is made where there is none."""
        if project not in self._clones:
            api = self.installation.api(TENANT)
            api.call("POST", f"/tenants/{TENANT}/projects", {"slug": project}, ("name-taken",))
            self._clones[project] = self.installation.clone(TENANT, project)
        return self._clones[project]

    def push(self, project: str, files: dict[str, str], environment: str = "") -> Pushed:
        """These files as a new commit of the environment's branch."""
        branch = BRANCHES[environment or self.environment]
        return self.project(project).push(files, f"+main:{branch}")

    def sample(self, folder: str) -> Pushed:
        """One of the sample applications, pushed as a project of the same name."""
        root = demo.EXAMPLES / folder
        files = {
            str(path.relative_to(root)): path.read_text()
            for path in root.rglob("*")
            if path.is_file() and "__pycache__" not in path.parts
        }
        return self.push(folder, files)

    def get(self, host: str, path: str = "/", environment: str = "") -> httpx.Response:
        """A request from outside, at the door of the environment's plane."""
        where = environment or self.environment
        first = host if where == "production" else f"{host}--{where}"
        door = self.door if where == self.environment else door_of_machine(self.installation)
        name = f"{first}.{TENANT}.{self.installation.config.apps_domain}"
        return httpx.get(f"{door}{path}", headers={"Host": name}, timeout=20)

    def serves(self, host: str, text: str, path: str = "/", environment: str = "", seconds: int = 60) -> None:
        """Wait until a host answers exactly this."""
        self.installation.wait(lambda: self.get(host, path, environment).text == text, seconds)

    def replicas(self, project: str, component: str = "web") -> list[dict[str, Any]]:
        """Replicas that are wanted."""
        rows = self.call("GET", project, "/replicas")
        return [row for row in rows if row["component"] == component and row["wanted"]]

    def addresses(self, project: str, component: str) -> list[str]:
        """Addresses of a component's replicas, as anybody may find them out."""
        if self.plane is None:
            rows = self.installation.replicas(TENANT, project, component, self.environment)
            return [row["v4"] for row in rows]
        selector = f"cytoplane.dev/component={component}"
        found = self.plane.nodes.pods(self.location(project), selector)
        return [pod["status"]["podIP"] for pod in found.values()]

    def location(self, project: str) -> str:
        """On a cluster: the cell's namespace."""
        assert self.plane is not None
        return next(place["location"] for place in self.plane.places() if place["project"] == project)

    def images(self, project: str, number: int, environment: str = "") -> dict[str, str]:
        """Component → digest of its image, of a release."""
        cell = (TENANT, project, environment or self.environment, number)
        return self.installation.query(_IMAGES, *cell)[0][0]

    def serving(self, project: str, environment: str = "") -> dict[str, Any]:
        """The release that serves."""
        rows = self.call("GET", project, "/releases", environment=environment)
        return next(row for row in rows if row["serving"])

    def deployment(self, project: str, environment: str = "") -> dict[str, Any]:
        """The newest one."""
        return self.call("GET", project, "/deployments", environment=environment)[0]

    def log(self, project: str) -> str:
        """What the newest deployment says of itself."""
        number = self.deployment(project)["id"]
        where = self.installation.cell(TENANT, project, f"/deployments/{number}/log", self.environment)
        address = f"{self.installation.config.portal_url}/api/v1{where}"
        token = self.installation.api(TENANT).token
        return httpx.get(address, headers={"Authorization": f"Bearer {token}"}, timeout=30).text

    def ended(self, project: str, environment: str = "", seconds: int = 120) -> dict[str, Any]:
        """The newest deployment, once it has ended."""

        def look() -> dict[str, Any] | None:
            row = self.deployment(project, environment)
            return row if row["state"] in ("live", "failed", "cancelled") else None

        return self.installation.wait(look, seconds)

    def reaching(self, world: Internet) -> AbstractContextManager[None]:
        """Replicas here have a way to a test's outer world."""
        return nullcontext() if self.plane is None else self.plane.reaching(world)

    def offline(self) -> None:
        """End what the plane is present by. That it was long ago is made up for the wait."""
        if self.plane is None:
            supervisor.stop(self.installation.config, ["agent"])
        else:
            self.plane.controllers(0)
        self.installation.query(_LONG_AGO, MACHINE if self.plane is None else self.plane.name)

    def online(self) -> None:
        if self.plane is None:
            supervisor.start(self.installation.config, ["agent"])
        else:
            self.plane.controllers(1)

    def damage(self, project: str) -> None:
        """End what a project's one replica runs in, as somebody with the plane's own tools can."""
        replica = self.replicas(project)[0]["id"]
        if self.plane is None:
            listed = self.installation.podman("ps", "--format", "{{.Names}}").stdout.split()
            name = next(name for name in listed if name.endswith(f"-{replica}"))
            assert self.installation.podman("kill", name).returncode == 0
            return
        with self.plane.nodes.client() as client:
            client.remove(f"/apis/apps/v1/namespaces/{self.location(project)}/deployments/{replica}")

    def clear(self) -> None:
        """Destroy all projects, with their cells on every plane."""
        api = self.installation.api(TENANT)
        for row in api.call("GET", f"/tenants/{TENANT}/projects"):
            api.call("DELETE", f"/tenants/{TENANT}/projects/{row['slug']}?confirm={row['slug']}")
        self._clones.clear()


def door_of_machine(installation: Installation) -> str:
    """Where the installation's own machine takes requests for applications."""
    return f"http://127.0.0.1:{installation.config.apps_port}"


def tenant(installation: Installation) -> None:
    """The tenant and its owner, once."""
    email = installation.member(TENANT)
    admin = installation.api("admin")
    admin.call(
        "POST", "/admin/users", {"email": email, "password": installation.accounts[email]}, ("name-taken",)
    )
    admin.call("POST", "/admin/tenants", {"slug": TENANT, "owner": email}, ("name-taken",))


def bind(installation: Installation, plane: str) -> None:
    """Production goes there; nothing is released in it."""
    path = f"/tenants/{TENANT}/environments/production/plane"
    installation.api("admin").call("PUT", path, {"plane": plane})
