"""git without typing a token: the remote, and a credential helper that answers from the sign-in."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from typing import Annotated
from urllib.parse import urlsplit

import typer

from cli import output, place
from cli.api import Api
from cli.errors import CliError
from cli.output import Json
from cli.place import Project, Tenant
from cli.settings import load
from cli.topics import topic

git = topic("Make `git push` use your sign-in.")
#: Any name will do: the password is a token, and a token knows whose it is.
_USER = "cyto"


def run_git(*arguments: str, fine: tuple[int, ...] = (0,)) -> str:
    """git's output. Raises ``CliError`` if it isn't there or fails with a status that isn't ``fine``."""
    try:
        done = subprocess.run(
            ["git", *arguments],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "LC_ALL": "C"},
        )
    except OSError:
        raise CliError("git isn't installed here.", "Install it, then try again.", "git-missing") from None
    if done.returncode not in fine:
        lines = done.stderr.strip().splitlines() or [f"`git {arguments[0]}` failed"]
        message = lines[0].removeprefix("fatal: ").removeprefix("error: ").rstrip(".")
        raise CliError(f"git says: {message}.", "Correct it and try again.", "git-failed")
    return done.stdout


def _helper() -> str:
    """The words by which git calls this very program, wherever it was started from.

    An installation's own `cyto` names itself: the one on the path may be another installation's.
    """
    program = shutil.which(os.environ.get("CYTO_PROGRAM", "")) or shutil.which("cyto")
    if program is None and sys.argv[0].startswith("/") and os.access(sys.argv[0], os.X_OK):
        program = sys.argv[0]
    words = [program] if program else [sys.executable, "-m", "cli"]
    return "!" + " ".join(map(shlex.quote, words)) + " git credential"


def teach(url: str) -> bool:
    """Name the helper for this platform alone in the user's git configuration; whether git is there."""
    if shutil.which("git") is None:
        return False
    try:
        # An empty helper first: no other one is asked for this address, or given the token to keep.
        run_git("config", "--global", "--replace-all", f"credential.{url}.helper", "")
        run_git("config", "--global", "--add", f"credential.{url}.helper", _helper())
        run_git("config", "--global", f"credential.{url}.username", _USER)
    except CliError as error:
        output.note(f"git couldn't be told about the sign-in: {error.message}")
        return False
    return True


def forget(url: str) -> None:
    """Take the helper out of the user's git configuration; nothing happens if it isn't there."""
    if shutil.which("git") is not None:
        try:
            # 128: there is no such section, or no configuration at all.
            run_git("config", "--global", "--remove-section", f"credential.{url}", fine=(0, 1, 5, 128))
        except CliError as error:
            output.note(f"git couldn't be told to forget the sign-in: {error.message}")


@git.command("setup")
def setup(
    url: Annotated[str, typer.Option(help="Address of the platform.")] = "", as_json: Json = False
) -> None:
    """Let git ask `cyto` for the password. It is for this platform alone; `cyto login` does it too."""
    address = load(url).url
    if not teach(address):
        raise CliError("git isn't set up.", "Is it installed, and ~/.gitconfig yours?", "git-failed")
    output.done(
        {"url": address, "helper": _helper()}, f"git uses your sign-in for {address} now.", raw=as_json
    )


@git.command("remote")
def remote(
    tenant: Tenant = "",
    project: Project = "",
    name: Annotated[str, typer.Option(help="What the remote is called.")] = "cytoplane",
    as_json: Json = False,
) -> None:
    """Add the project as a remote of this repository. One that has the name is pointed there."""
    where, api = place.project(tenant, project), Api()
    found = api.get(where.project_path)  # a typing error shows now and not at the first push
    address = f"{api.url}{found['git']}"
    known = run_git("remote").split()
    run_git("remote", "set-url" if name in known else "add", "--", name, address)
    output.done({"name": name, "url": address}, f"`git push {name} main` deploys now.", raw=as_json)


@git.command("credential", hidden=True)
def credential(operation: str) -> None:
    """git's side of the helper: answers `get` for the platform's address alone."""
    if operation != "get":
        return
    asked = dict(line.rstrip("\n").split("=", 1) for line in sys.stdin if "=" in line)
    address = f"{asked.get('protocol', '')}://{asked.get('host', '')}"
    try:
        settings = load(address)
    except CliError:
        return  # not an address that could be a platform's
    parts = urlsplit(settings.url)
    elsewhere = (parts.scheme, parts.netloc) != (asked.get("protocol"), asked.get("host", "").lower())
    # A token of the environment is for the platform that CYTO_URL or the sign-in names, nobody else's.
    secret = settings.token if load().url == settings.url else settings.tokens.get(settings.url, "")
    if secret and not elsewhere:
        print(f"username={_USER}\npassword={secret}")


def register(app: typer.Typer) -> None:
    app.add_typer(git, name="git")
