"""Which tenant, project and environment a command is about: flags, else the environment, else the git remote."""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import dataclass
from typing import Annotated

import typer

from cli.api import USAGE, CliError, part

Tenant = Annotated[
    str, typer.Option("--tenant", "-t", envvar="CYTO_TENANT", help="Tenant; else from the git remote.")
]
Project = Annotated[
    str, typer.Option("--project", "-p", envvar="CYTO_PROJECT", help="Project; else from the git remote.")
]
Environment = Annotated[
    str,
    typer.Option("--environment", "-e", envvar="CYTO_ENVIRONMENT", help="Environment.", show_default=True),
]
_REMOTE = re.compile(r"/git/([a-z0-9-]+)/([a-z0-9-]+?)(?:\.git)?$")


def from_git() -> tuple[str, str]:
    """Tenant and project of the repository that one stands in; empty if none is the platform's."""
    environment = {**os.environ, "LC_ALL": "C"}
    try:
        done = subprocess.run(
            ["git", "remote", "--verbose"], capture_output=True, text=True, env=environment, check=False
        )
    except OSError:
        return "", ""
    for line in done.stdout.splitlines():
        words = line.split()
        if len(words) > 1 and (match := _REMOTE.search(words[1])):
            return match.group(1), match.group(2)
    return "", ""


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
        f"Give --{what} NAME, set CYTO_{what.upper()}, or stand in a repository with the platform as git remote.",
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
    """A project by flags or git remote."""
    found = from_git() if not (tenant_name and name) else ("", "")
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
