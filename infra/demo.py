"""The main job, from nothing: tenants, members, three applications by git push, one allowed and one denied call."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx

from dataplane.agent import state
from dataplane.client import write_private
from infra import install
from infra.config import Config

EXAMPLES = install.REPOSITORY / "examples"
ADMIN = "admin@cytoplane.localhost"
#: tenant → (member, its applications: folder → project)
TENANTS = {
    "acme": ("dev@acme.localhost", {"storefront": "storefront", "docs-site": "handbook"}),
    "globex": ("dev@globex.localhost", {"prober": "prober"}),
}


class Api:
    """The REST API as somebody."""

    def __init__(self, config: Config, email: str, password: str) -> None:
        self._client = httpx.Client(base_url=f"{config.portal_url}/api/v1", timeout=30)
        document = {"email": email, "password": password, "name": "demo", "days": 7}
        self.token: str = self.call("POST", "/tokens", document)["token"]
        self._client.headers["Authorization"] = f"Bearer {self.token}"

    def call(self, method: str, path: str, document: Any = None, fine: tuple[str, ...] = ()) -> Any:
        """The answer; errors whose id is in ``fine`` give None."""
        answer = self._client.request(method, path, json=document)
        if answer.is_success:
            return answer.json()
        error = answer.json()["error"]
        if error["id"] in fine:
            return None
        raise install.InstallError(f"{method} {path}: {error['message']} {error['next']}")


def _accounts(config: Config) -> dict[str, str]:
    """Email → password of the demonstration's accounts; made once, kept where only root reads."""
    file = config.home / "demo.json"
    if file.exists():
        return json.loads(file.read_text())
    emails = [ADMIN, *(member for member, _ in TENANTS.values())]
    accounts = {email: secrets.token_urlsafe(12) for email in emails}
    write_private(file, json.dumps(accounts, indent=1).encode())
    return accounts


def run(config: Config, say: Any) -> int:
    """Everything that the demonstration shows; running it again changes nothing that it needn't."""
    accounts = _accounts(config)
    venv, app = install.venv_of(), config.home / "app"
    say("Tenants and their members")
    install.manage(config, venv, app, "init_platform", "--admin", ADMIN, data=accounts[ADMIN] + "\n")
    admin = Api(config, ADMIN, accounts[ADMIN])
    members = {}
    for tenant, (member, projects) in TENANTS.items():
        admin.call("POST", "/admin/users", {"email": member, "password": accounts[member]}, ("name-taken",))
        admin.call("POST", "/admin/tenants", {"slug": tenant, "owner": member}, ("name-taken",))
        members[tenant] = Api(config, member, accounts[member])
        for project in projects.values():
            members[tenant].call("POST", f"/tenants/{tenant}/projects", {"slug": project}, ("name-taken",))
    for tenant, (_, projects) in TENANTS.items():
        for folder, project in projects.items():
            say(f"git push of {folder} to {tenant}/{project}")
            push(config, members[tenant].token, tenant, project, EXAMPLES / folder)
    _show_calls(config, members["globex"], say)
    print(
        f"""
Portal        {config.portal_url}
  admin       {ADMIN}  {accounts[ADMIN]}"""
    )
    for tenant, (member, _) in TENANTS.items():
        print(f"  {tenant:<11} {member}  {accounts[member]}")
    port = "" if config.apps_port == 80 else f":{config.apps_port}"
    print("Applications")
    for host in ("storefront.acme", "handbook.acme", "prober.globex"):
        print(f"  http://{host}.{config.apps_domain}{port}/")
    print(f"Command line  cyto login --url {config.portal_url}")
    return 0


def push(config: Config, token: str, tenant: str, project: str, source: Path) -> None:
    """Push a folder as a repository's main branch; nothing happens if it is what was pushed before."""
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder) / "work"
        shutil.copytree(source, work, ignore=shutil.ignore_patterns("__pycache__", ".git"))
        # The same content gives the same commit: a second run has nothing to push.
        stamp = "2026-01-01T00:00:00Z"
        environment = {
            **os.environ,
            "GIT_CONFIG_GLOBAL": "/dev/null",
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_AUTHOR_DATE": stamp,
            "GIT_COMMITTER_DATE": stamp,
            **{f"GIT_{who}_{what}": value for who in ("AUTHOR", "COMMITTER") for what, value in
               (("NAME", "Demo"), ("EMAIL", "demo@cytoplane.localhost"))},
            "GIT_ASKPASS": str(_askpass(Path(folder))),
            "CYTOPLANE_TOKEN": token,
        }  # fmt: skip

        def git(*arguments: str, show: bool = False) -> None:
            command = ["git", "-C", str(work), *arguments]
            done = subprocess.run(command, env=environment, capture_output=not show, text=True, check=False)
            if done.returncode:
                raise install.InstallError(f"`git {arguments[0]}` failed. {done.stderr or ''}".strip())

        git("init", "--quiet", "--initial-branch=main")
        git("add", "--all")
        git("commit", "--quiet", "--message", f"Example application {source.name}")
        url = f"http://demo@{config.portal_host}:{config.portal_port}/git/{tenant}/{project}.git"
        git("push", url, "main", show=True)


def _askpass(folder: Path) -> Path:
    """A program that gives git the token, so that it is on no command line and in no URL."""
    file = folder / "askpass"
    file.write_text('#!/bin/sh\nprintf %s "$CYTOPLANE_TOKEN"\n')
    file.chmod(0o700)
    return file


def _get(config: Config, host: str, path: str = "/", tries: int = 20) -> httpx.Response:
    """A request through the gateway by Host header: not every system resolves names below localhost."""
    url, name = f"http://127.0.0.1:{config.apps_port}{path}", f"{host}.{config.apps_domain}"
    for attempt in range(tries):
        answer = httpx.get(url, headers={"Host": name}, timeout=30)
        if answer.status_code < 500 or attempt == tries - 1:
            break
        time.sleep(0.2)
    return answer


def _show_calls(config: Config, globex: Api, say: Any) -> None:
    say("An allowed call: the storefront asks its API, which its gateway names the caller")
    answer = _get(config, "storefront.acme")
    caller = "acme/storefront/web" in answer.text
    print(
        f"       GET http://storefront.acme.{config.apps_domain} → {answer.status_code}, caller named: {caller}"
    )
    if answer.status_code != 200 or not caller:
        raise install.InstallError("The storefront doesn't answer as it should.")
    say("A denied call: globex tries to reach acme's API")
    targets = denied_targets(config)
    query = "&".join(f"to={target}" for target in targets)
    attempts = _get(config, "prober.globex", f"/try?{query}").json()["attempts"]
    for attempt in attempts:
        print(f"       {attempt['host']}:{attempt['port']} → {attempt['outcome']}")
        if attempt["outcome"] == "reached":
            raise install.InstallError("Isolation doesn't hold.")
    path = "/tenants/globex/projects/prober/environments/production"
    for _ in range(40):
        edges = globex.call("GET", f"{path}/edges?denied=true")
        if edges:
            break
        time.sleep(0.25)
    for edge in edges[:3]:
        print(
            f"       seen: {edge['source']} → {edge['destination']}:{edge['port']} {edge['reason']}: {edge['sentence']}"
        )


def denied_targets(config: Config) -> list[str]:
    """acme's API as seen from outside acme: by name, service address and container address."""
    found = ["api.storefront:9000"]
    kept = state.load(config.agent_dir / "state.json")
    if kept is None:
        return found
    desired = kept.view()
    ours = {
        endpoint["identity"]: endpoint
        for endpoint in desired["endpoints"]
        if endpoint["labels"]["tenant"] == "acme" and endpoint["labels"]["component"] == "api"
    }
    for endpoint in ours.values():
        found += [f"{endpoint['v4']}:9000", f"[{endpoint['v6']}]:9000"]
        for service in desired["boundary"]["services"]:
            if any(backend[0] == endpoint["id"] for backend in service["backends"]):
                address = f"[{service['address']}]" if ":" in service["address"] else service["address"]
                found.append(f"{address}:9000")
    return found
