"""Releases, deployments, replicas."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from cli import output, place
from cli.api import FAILED, USAGE, Api, CliError
from cli.output import Json
from cli.place import Environment, Project, Tenant

releases = typer.Typer(help="Releases: code and configuration together.", invoke_without_command=True)
deployments = typer.Typer(help="Deployments: releases on their way.", invoke_without_command=True)
Wait = Annotated[bool, typer.Option("--wait/--no-wait", help="Wait for the end, with its log.")]
_ENDED = ("live", "failed", "cancelled")


def after(
    api: Api, where: place.Place, deployment: Any, answer: Any, wait: bool, as_json: bool, done: str
) -> None:
    """Follow a deployment that a command made, or tell its number."""
    if not deployment:
        output.as_json(answer) if as_json else output.note(done)
        return
    number = deployment["id"] if isinstance(deployment, dict) else deployment
    if not wait:
        output.as_json(answer) if as_json else output.note(f"{done} Deployment {number} is underway.")
        return
    follow(api, where, int(number), as_json)


def follow(api: Api, where: place.Place, number: int, as_json: bool) -> None:
    """Show a deployment's log until it ends; the exit code says how."""
    path = f"{where.path}/deployments/{number}"
    for text in api.stream(f"{path}/log", follow="true"):
        sys.stderr.write(text)
        sys.stderr.flush()
    found = api.get(path)
    if as_json:
        output.as_json(found)
    if found["state"] != "live" and found["state"] in _ENDED:
        error = found.get("error") or {}
        raise CliError(
            error.get("message") or f"The deployment is {found['state']}.", error.get("next", ""),
            error.get("id", found["state"]), FAILED,
        )  # fmt: skip


def _releases(where: place.Place, limit: int, as_json: bool) -> None:
    rows = Api().get(f"{where.path}/releases", limit=limit)
    for row in rows if not as_json else ():
        row |= {
            "number": f"v{row['number']}",
            "commit": (row["commit"] or "")[:8],
            "created_at": output.ago(row["created_at"]),
        }
    columns = {"number": "RELEASE", "serving": "SERVES", "commit": "COMMIT", "summary": "SUMMARY",
               "created_by": "BY", "created_at": "WHEN"}  # fmt: skip
    output.table(rows, columns, raw=as_json, empty="No release yet: a push makes one.")


@releases.callback()
def releases_default(
    context: typer.Context, tenant: Tenant = "", project: Project = "", environment: Environment = "production",
    as_json: Json = False,
) -> None:  # fmt: skip
    if context.invoked_subcommand is None:
        _releases(place.cell(tenant, project, environment), 20, as_json)


@releases.command("list")
def list_releases(
    tenant: Tenant = "", project: Project = "", environment: Environment = "production", limit: int = 20,
    as_json: Json = False,
) -> None:  # fmt: skip
    """Releases, newest first."""
    _releases(place.cell(tenant, project, environment), limit, as_json)


def rollback(
    release: Annotated[str, typer.Argument(help="v3 or 3; the one before what serves if missing.")] = "",
    tenant: Tenant = "",
    project: Project = "",
    environment: Environment = "production",
    wait: Wait = True,
    as_json: Json = False,
) -> None:
    """Go back to a release: its code and its configuration, as a new release."""
    where, api = place.cell(tenant, project, environment), Api()
    text = release.removeprefix("v")
    if not text:
        rows = api.get(f"{where.path}/releases", limit=200)
        serving = next((row["number"] for row in rows if row.get("serving")), None)
        earlier = [row["number"] for row in rows if serving and row["number"] < serving]
        if not earlier:
            raise CliError("There is no release to go back to.", "`cyto releases` lists them.", "no-release")
        text = str(max(earlier))
    if not (text.isascii() and text.isdigit()):
        raise CliError(f"`{release}` isn't a release.", "Write it like v3.", "usage", USAGE)
    answer = api.post(f"{where.path}/releases/{text}/rollback")
    after(api, where, answer, answer, wait, as_json, f"Going back to v{text}.")


def _deployments(where: place.Place, limit: int, as_json: bool) -> None:
    rows = Api().get(f"{where.path}/deployments", limit=limit)
    for row in rows if not as_json else ():
        row |= {
            "release": f"v{row['release']}" if row.get("release") else "",
            "created_at": output.ago(row["created_at"]),
            "error": (row.get("error") or {}).get("message", ""),
        }
    columns = {"id": "ID", "kind": "KIND", "state": "STATE", "release": "RELEASE", "summary": "SUMMARY",
               "created_by": "BY", "created_at": "WHEN", "error": "ERROR"}  # fmt: skip
    output.table(rows, columns, raw=as_json, empty="No deployment yet: a push makes one.")


@deployments.callback()
def deployments_default(
    context: typer.Context, tenant: Tenant = "", project: Project = "", environment: Environment = "production",
    as_json: Json = False,
) -> None:  # fmt: skip
    if context.invoked_subcommand is None:
        _deployments(place.cell(tenant, project, environment), 20, as_json)


@deployments.command("list")
def list_deployments(
    tenant: Tenant = "", project: Project = "", environment: Environment = "production", limit: int = 20,
    as_json: Json = False,
) -> None:  # fmt: skip
    """Deployments, newest first."""
    _deployments(place.cell(tenant, project, environment), limit, as_json)


@deployments.command("show")
def show_deployment(
    number: Annotated[int, typer.Argument(metavar="ID")],
    tenant: Tenant = "", project: Project = "", environment: Environment = "production", as_json: Json = False,
) -> None:  # fmt: skip
    """One deployment with its steps."""
    found = Api().get(f"{place.cell(tenant, project, environment).path}/deployments/{number}")
    if as_json:
        output.as_json(found)
        return
    steps = found.pop("steps", [])
    error = found.pop("error", None) or {}
    output.facts(found | ({"error": error.get("message")} if error else {}), raw=False)
    output.table(
        steps,
        {"name": "STEP", "ok": "OK", "started_at": "BEGAN", "ended_at": "ENDED"},
        raw=False,
        empty="No steps.",
    )


@deployments.command("log")
def deployment_log(
    number: Annotated[int, typer.Argument(metavar="ID")],
    follow_it: Annotated[bool, typer.Option("--follow", "-f", help="Until it ends.")] = False,
    tenant: Tenant = "", project: Project = "", environment: Environment = "production", as_json: Json = False,
) -> None:  # fmt: skip
    """A deployment's log."""
    where = place.cell(tenant, project, environment)
    pieces = Api().stream(f"{where.path}/deployments/{number}/log", follow=str(follow_it).lower())
    if as_json:
        output.as_json({"id": number, "log": "".join(pieces)})
        return
    for text in pieces:
        sys.stdout.write(text)
        sys.stdout.flush()


@deployments.command("cancel")
def cancel(
    number: Annotated[int, typer.Argument(metavar="ID")],
    tenant: Tenant = "", project: Project = "", environment: Environment = "production", as_json: Json = False,
) -> None:  # fmt: skip
    """Stop a deployment that hasn't switched traffic yet."""
    answer = Api().post(f"{place.cell(tenant, project, environment).path}/deployments/{number}/cancel")
    output.as_json(answer) if as_json else output.note(f"Deployment {number} is being cancelled.")


@deployments.command("retry")
def retry(
    number: Annotated[int, typer.Argument(metavar="ID")],
    tenant: Tenant = "", project: Project = "", environment: Environment = "production", wait: Wait = True,
    as_json: Json = False,
) -> None:  # fmt: skip
    """Try a failed deployment once more."""
    where, api = place.cell(tenant, project, environment), Api()
    answer = api.post(f"{where.path}/deployments/{number}/retry")
    after(api, where, answer, answer, wait, as_json, "Once more.")


def ps(
    tenant: Tenant = "", project: Project = "", environment: Environment = "production", as_json: Json = False
) -> None:
    """What runs: replicas with their state."""
    rows = Api().get(f"{place.cell(tenant, project, environment).path}/replicas")
    for row in rows if not as_json else ():
        row |= {
            "name": f"{row['component']}.{row['number']}",
            "release": f"v{row['release']}",
            "since": output.ago(row["since"]),
        }
    columns = {
        "name": "REPLICA",
        "release": "RELEASE",
        "phase": "STATE",
        "since": "SINCE",
        "restarts": "RESTARTS",
    }
    output.table(rows, columns, raw=as_json, empty="Nothing runs.")


def scale(
    numbers: Annotated[list[str], typer.Argument(metavar="COMPONENT=NUMBER…")],
    tenant: Tenant = "", project: Project = "", environment: Environment = "production", wait: Wait = True,
    as_json: Json = False,
) -> None:  # fmt: skip
    """Change numbers of replicas, all in one deployment."""
    wanted = {}
    for word in numbers:
        name, _, text = word.partition("=")
        if not name or not (text.isascii() and text.isdigit()):
            raise CliError(f"`{word}` isn't COMPONENT=NUMBER.", "Write it like web=3.", "usage", USAGE)
        wanted[name] = int(text)
    where, api = place.cell(tenant, project, environment), Api()
    answer = api.post(f"{where.path}/scale", {"numbers": wanted})
    after(api, where, answer, answer, wait, as_json, "Scaling.")


def register(app: typer.Typer) -> None:
    app.add_typer(releases, name="releases")
    app.command()(rollback)
    app.add_typer(deployments, name="deployments")
    app.command()(ps)
    app.command()(scale)
