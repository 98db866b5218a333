"""Which tenant, project and environment a command is about: flags, else the environment, else the git remote."""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import dataclass
from typing import Annotated
from urllib.parse import urlsplit

import typer

from cli.api import part
from cli.errors import USAGE, CliError
from cli.settings import load

Tenant = Annotated[
    str, typer.Option("--tenant", "-t", envvar="CYTO_TENANT", help="Tenant; else from the git remote.")
]
Project = Annotated[
    str, typer.Option("--project", "-p", envvar="CYTO_PROJECT", help="Project; else from the git remote.")
]
Environment = Annotated[
    str, typer.Option("--environment", "-e", envvar="CYTO_ENVIRONMENT", help="Environment.")
]
_PATH = re.compile(r"/git/([a-z0-9-]+)/([a-z0-9-]+?)(?:\.git)?/?")
#: This remote is asked first where there are several of the platform.
_FIRST = ("cytoplane", "origin")


def _repository(url: str) -> tuple[tuple[str, str, int | None], str]:
    """Scheme, host and port of an address, and its path; nothing of one that can't be read."""
    try:
        parts = urlsplit(url)
        port = parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    except ValueError:
        return ("", "", None), ""
    return (parts.scheme, parts.hostname or "", port), parts.path


def from_git() -> tuple[str, str]:
    """Tenant and project of the repository that one stands in; empty if no remote is this platform's."""
    found = _remotes()
    for name in (*_FIRST, *found):
        if name in found:
            return found[name]
    return "", ""


def remote_of(tenant_name: str, project_name: str) -> str:
    """The name of the remote that is the project's repository; "" if there is none."""
    found = {name: where for name, where in _remotes().items() if where == (tenant_name, project_name)}
    return next((name for name in (*_FIRST, *found) if name in found), "")


def _remotes() -> dict[str, tuple[str, str]]:
    """Name → tenant and project of the repository's remotes that are this platform's."""
    environment = {**os.environ, "LC_ALL": "C"}
    command = ["git", "config", "--get-regexp", r"^remote\..*\.url$"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    except OSError:
        return {}
    (ours, _), found = _repository(load().url), {}
    for line in done.stdout.splitlines():
        key, _, url = line.partition(" ")
        authority, path = _repository(url)
        match = _PATH.fullmatch(path)
        if match and authority == ours:
            found[key.removeprefix("remote.").removesuffix(".url")] = (match[1], match[2])
    return found


@dataclass(frozen=True)
class Place:
    """Names that were given or found."""

    tenant: str
    project: str = ""
    environment: str = ""

    @property
    def tenant_path(self) -> str:
        return f"/tenants/{part(self.tenant)}"

    @property
    def project_path(self) -> str:
        return f"{self.tenant_path}/projects/{part(self.project)}"

    @property
    def path(self) -> str:
        """The cell's path."""
        return f"{self.project_path}/environments/{part(self.environment)}"


def _missing(what: str) -> CliError:
    return CliError(
        f"It isn't known which {what} is meant.",
        f"Give --{what} NAME, set CYTO_{what.upper()}, or stand in a repository with a remote at {load().url}.",
        "place-missing",
        USAGE,
    )


def tenant(name: str) -> Place:
    """A tenant by flag or git remote."""
    name = name or from_git()[0]
    if not name:
        raise _missing("tenant")
    return Place(name)


def project(tenant_name: str, name: str) -> Place:
    """A project by flags or git remote. Another tenant's project is never guessed from the remote."""
    found = from_git() if not (tenant_name and name) else ("", "")
    if tenant_name and tenant_name != found[0]:
        found = ("", "")
    tenant_name, name = tenant_name or found[0], name or found[1]
    if not tenant_name:
        raise _missing("tenant")
    if not name:
        raise _missing("project")
    return Place(tenant_name, name)


def cell(tenant_name: str, project_name: str, environment: str) -> Place:
    """A cell."""
    where = project(tenant_name, project_name)
    return Place(where.tenant, where.project, environment)
