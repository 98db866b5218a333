"""Releases, deployments, replicas."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from cli import output, place, progress
from cli.api import Api
from cli.errors import CONFLICT, CliError, usage
from cli.output import Json
from cli.place import Environment, Project, Tenant
from cli.progress import Wait
from cli.tenants import Before, Limit
from cli.topics import topic

releases = topic("Releases: code and configuration together.")
deployments = topic("Deployments: releases on their way.")
Number = Annotated[int, typer.Argument(metavar="ID", min=1, help="As `cyto deployments` shows it.")]


@releases.command("list")
def list_releases(
    limit: Limit = 20, before: Before = 0, tenant: Tenant = "", project: Project = "",
    environment: Environment = "production", as_json: Json = False,
) -> None:  # fmt: skip
    """Releases, newest first."""
    path = f"{place.cell(tenant, project, environment).path}/releases"
    rows = Api().get(path, limit=limit, before=before or None)
    for row in rows if not as_json else ():
        row |= {
            "number": f"v{row['number']}",
            "commit": (row["commit"] or "")[:8],
            "created_at": output.ago(row["created_at"]),
            "created_by": output.person(row["created_by"]),
        }
    columns = {"number": "RELEASE", "serving": "SERVES", "commit": "COMMIT", "summary": "SUMMARY",
               "created_by": "BY", "created_at": "WHEN"}  # fmt: skip
    output.table(rows, columns, raw=as_json, empty="No release yet: a push makes one.")


def _release(text: str) -> str:
    """``v3`` or ``3`` as a number's digits."""
    digits = text.removeprefix("v")
    if not (digits.isascii() and digits.isdigit()):
        raise usage(f"`{text}` isn't a release.", "Write it like v3; `cyto releases` lists them.")
    return digits


def _one_before(rows: list[dict[str, Any]]) -> str:
    """The newest release that is older than the one that serves."""
    serving = next((row["number"] for row in rows if row["serving"]), None)
    earlier = [row["number"] for row in rows if serving is not None and row["number"] < serving]
    if not earlier:
        raise CliError(
            "There is no release to go back to.", "`cyto releases` lists them.", "nothing-released", CONFLICT
        )
    return str(max(earlier))


def rollback(
    release: Annotated[
        str, typer.Argument(metavar="[RELEASE]", help="Like v3; without it the one before what serves.")
    ] = "",
    wait: Wait = True,
    tenant: Tenant = "",
    project: Project = "",
    environment: Environment = "production",
    as_json: Json = False,
) -> None:
    """Go back to a release, its code and its configuration. That makes a new release."""
    number = _release(release) if release else ""
    where, api = place.cell(tenant, project, environment), Api()
    number = number or _one_before(api.get(f"{where.path}/releases", limit=200))
    answer = api.post(f"{where.path}/releases/{number}/rollback")
    text = f"Going back to v{number}."
    progress.after(api, where, answer["id"], answer, text, wait=wait, raw=as_json)


def promote(
    to: Annotated[str, typer.Argument(metavar="ENVIRONMENT", help="Where it goes to.")],
    release: Annotated[
        str, typer.Option("--release", metavar="RELEASE", help="Like v3; without it what serves.")
    ] = "",
    wait: Wait = True,
    tenant: Tenant = "",
    project: Project = "",
    environment: Environment = "staging",
    as_json: Json = False,
) -> None:
    """Bring a release of an environment into another one, as it was built, with that one's configuration."""
    number = _release(release) if release else ""
    where, api = place.cell(tenant, project, environment), Api()
    number = number or _what_serves(api.get(f"{where.path}/releases", limit=200))
    answer = api.post(f"{where.path}/releases/{number}/promote", {"to": to})
    target = place.cell(tenant, project, to)
    text = f"Promoting v{number} of {environment} to {to}."
    progress.after(api, target, answer["id"], answer, text, wait=wait, raw=as_json)


def _what_serves(rows: list[dict]) -> str:
    """The number of the release that serves."""
    for row in rows:
        if row["serving"]:
            return str(row["number"])
    raise CliError(
        "Nothing serves there that could be promoted.",
        "`cyto releases` lists what there is; name one with --release.",
        "nothing-released",
        CONFLICT,
    )


@deployments.command("list")
def list_deployments(
    limit: Limit = 20, before: Before = 0, tenant: Tenant = "", project: Project = "",
    environment: Environment = "production", as_json: Json = False,
) -> None:  # fmt: skip
    """Deployments, newest first."""
    path = f"{place.cell(tenant, project, environment).path}/deployments"
    rows = Api().get(path, limit=limit, before=before or None)
    for row in rows if not as_json else ():
        row |= {
            "release": f"v{row['release']}" if row.get("release") else "",
            "created_at": output.ago(row["created_at"]),
            "created_by": output.person(row["created_by"]),
            "error": (row.get("error") or {}).get("id", ""),
        }
    columns = {"id": "ID", "kind": "KIND", "state": "STATE", "release": "RELEASE", "summary": "SUMMARY",
               "created_by": "BY", "created_at": "WHEN", "error": "ERROR"}  # fmt: skip
    output.table(rows, columns, raw=as_json, empty="No deployment yet: a push makes one.")


@deployments.command("show")
def show_deployment(
    number: Number, tenant: Tenant = "", project: Project = "", environment: Environment = "production",
    as_json: Json = False,
) -> None:  # fmt: skip
    """One deployment with its steps."""
    found = Api().get(f"{place.cell(tenant, project, environment).path}/deployments/{number}")
    if as_json:
        output.as_json(found)
        return
    steps, error = found.pop("steps"), found.pop("error") or {}
    if error:
        found |= {"error": f"{error['message']} ({error['id']})", "next": error.get("next")}
    output.facts({key: value for key, value in found.items() if value not in (None, "")}, raw=False)
    print()
    for step in steps:
        step |= {"started_at": (step["started_at"] or "")[11:19], "ended_at": (step["ended_at"] or "")[11:19]}
    columns = {"name": "STEP", "ok": "OK", "started_at": "BEGAN", "ended_at": "ENDED"}
    output.table(steps, columns, raw=False, empty="It hasn't begun.")


@deployments.command("log")
def deployment_log(
    number: Number,
    follow: Annotated[
        bool, typer.Option("--follow", "--tail", "-f", help="Until it ends; the exit code says how.")
    ] = False,
    tenant: Tenant = "", project: Project = "", environment: Environment = "production", as_json: Json = False,
) -> None:  # fmt: skip
    """A deployment's log."""
    api, path = Api(), f"{place.cell(tenant, project, environment).path}/deployments/{number}"
    pieces: list[str] = []
    write = pieces.append if as_json else progress.to_terminal(sys.stdout)
    if follow:
        found = progress.stream_log(api, path, write)
    else:
        found = {"ended_at": None}
        for text in api.stream(f"{path}/log"):
            write(text)
    if as_json:
        output.as_json({"id": number, "log": "".join(pieces)})
    error = progress.failure(found, shown=as_json)
    if error:
        raise error


@deployments.command("cancel")
def cancel(
    number: Number, tenant: Tenant = "", project: Project = "", environment: Environment = "production",
    as_json: Json = False,
) -> None:  # fmt: skip
    """Stop a deployment that hasn't switched traffic yet."""
    answer = Api().post(f"{place.cell(tenant, project, environment).path}/deployments/{number}/cancel")
    output.done(answer, f"Deployment {number} is being cancelled.", raw=as_json)


@deployments.command("retry")
def retry(
    number: Number, wait: Wait = True, tenant: Tenant = "", project: Project = "",
    environment: Environment = "production", as_json: Json = False,
) -> None:  # fmt: skip
    """Try a deployment that failed or was cancelled once more."""
    where, api = place.cell(tenant, project, environment), Api()
    answer = api.post(f"{where.path}/deployments/{number}/retry")
    progress.after(api, where, answer["id"], answer, "Once more.", wait=wait, raw=as_json)


def ps(
    tenant: Tenant = "", project: Project = "", environment: Environment = "production", as_json: Json = False
) -> None:
    """What runs: replicas with their state."""
    rows = Api().get(f"{place.cell(tenant, project, environment).path}/replicas")
    for row in rows if not as_json else ():
        detail = row["detail"] or {}
        why = detail.get("reason") or (f"exit code {detail['exit_code']}" if "exit_code" in detail else "")
        row |= {
            "name": f"{row['component']}.{row['number']}",
            "release": f"v{row['release']}",
            "since": output.ago(row["since"]),
            "detail": why if row["phase"] != "healthy" else "",
        }
    columns = {"name": "REPLICA", "release": "RELEASE", "phase": "STATE", "since": "SINCE",
               "restarts": "RESTARTS", "detail": "WHY"}  # fmt: skip
    output.table(rows, columns, raw=as_json, empty="Nothing runs.")


def scale(
    numbers: Annotated[list[str] | None, typer.Argument(metavar="[COMPONENT=NUMBER...]")] = None,
    wait: Wait = True, tenant: Tenant = "", project: Project = "", environment: Environment = "production",
    as_json: Json = False,
) -> None:  # fmt: skip
    """Change numbers of replicas, all in one deployment; without one, show them.

    A component that follows its load shows what was measured and decided. A number within its range holds
    until the next decision.
    """
    if not numbers:
        _numbers(Api().get(f"{place.cell(tenant, project, environment).path}/scale"), as_json)
        return
    wanted = {}
    for word in numbers:
        name, _, text = word.partition("=")
        if not name or not (text.isascii() and text.isdigit() and len(text) < 6):
            raise usage(f"`{word}` isn't COMPONENT=NUMBER.", "Write it like web=3.")
        if name in wanted:
            raise usage(f"`{name}` is named twice.", "Give each component one number.")
        wanted[name] = int(text)
    where, api = place.cell(tenant, project, environment), Api()
    answer = api.post(f"{where.path}/scale", {"numbers": wanted})
    text = "Scaling " + ", ".join(f"{name} to {number}" for name, number in wanted.items()) + "."
    if following := answer.get("follow_load"):
        output.note(f"Following load: {', '.join(following)}. The number holds until the next decision.")
    progress.after(api, where, answer["id"], answer, text, wait=wait, raw=as_json)


def _numbers(rows: list[dict[str, Any]], raw: bool) -> None:
    """Components with their numbers, and what was decided last of those that follow load."""
    for row in rows if not raw else ():
        found = row["autoscaling"]
        if found is None:
            continue
        row |= {
            "range": f"{found['min']} to {found['max']}",
            "load": found["why"] or "not measured yet",
            "decided": f"{found['change']} ({output.ago(found['changed_at'])})"
            if found["changed_at"]
            else "",
            "held": found["held"],
        }
    columns = {"component": "COMPONENT", "replicas": "REPLICAS", "range": "RANGE", "load": "LOAD",
               "decided": "LAST CHANGE", "held": "HELD BY"}  # fmt: skip
    output.table(rows, columns, raw=raw, empty="Nothing has replicas.")


def register(app: typer.Typer) -> None:
    app.add_typer(releases, name="releases")
    app.command()(rollback)
    app.command()(promote)
    app.add_typer(deployments, name="deployments")
    app.command()(ps)
    app.command()(scale)
