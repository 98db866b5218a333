"""git without typing a token: the remote, and a credential helper that answers from the sign-in."""

from __future__ import annotations

import shlex
import subprocess
import sys
from typing import Annotated
from urllib.parse import urlsplit

import typer

from cli import output, place
from cli.api import CliError
from cli.place import Project, Tenant
from cli.settings import load

topic = typer.Typer(help="Make `git push` use your sign-in.", no_args_is_help=True)


def _git(*arguments: str) -> None:
    done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise CliError(done.stderr.strip() or f"`git {arguments[0]}` failed.", "", "git-failed")


@topic.command("setup")
def setup(url: Annotated[str, typer.Option(help="Address of the platform.")] = "") -> None:
    """Tell git to ask `cyto` for the password of the platform, and of nothing else."""
    settings = load(url)
    program = shlex.quote(sys.argv[0]) if sys.argv[0].startswith("/") else "cyto"
    _git("config", "--global", f"credential.{settings.url}.helper", f"!{program} git credential")
    _git("config", "--global", f"credential.{settings.url}.username", "cyto")
    output.note(f"git uses your sign-in for {settings.url} now.")


@topic.command("remote")
def remote(
    tenant: Tenant = "",
    project: Project = "",
    name: Annotated[str, typer.Option(help="What the remote is called.")] = "cytoplane",
) -> None:
    """Add the project as a remote of this repository."""
    where = place.project(tenant, project)
    _git("remote", "add", name, f"{load().url}/git/{where.tenant}/{where.project}.git")
    output.note(f"`git push {name} main` deploys now.")


@topic.command("credential", hidden=True)
def credential(operation: str) -> None:
    """git's side of the helper: answers `get` for the platform's address alone."""
    if operation != "get":
        return
    asked = dict(line.strip().split("=", 1) for line in sys.stdin if "=" in line)
    url = f"{asked.get('protocol', '')}://{asked.get('host', '')}"
    settings = load(url)
    parts = urlsplit(settings.url)
    if settings.token and (parts.scheme, parts.netloc) == (asked.get("protocol"), asked.get("host")):
        print(f"username=cyto\npassword={settings.token}")


def register(app: typer.Typer) -> None:
    app.add_typer(topic, name="git")
