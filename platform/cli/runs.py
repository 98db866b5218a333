"""Runs: a command once in a component's image, what schedules did, and when they do it next."""

from __future__ import annotations

import re
import time
from typing import Annotated, Any

import typer

from cli import output, place
from cli.api import Api
from cli.errors import FAILED, PLATFORM, UNREACHABLE, CliError, usage
from cli.output import Json
from cli.place import Environment, Project, Tenant
from cli.tenants import Before, Limit
from cli.topics import topic

runs = topic("Runs: what was run once, by somebody, by a schedule or by a deployment.")
schedules = topic("Schedules: when components of kind cron run next.")
Number = Annotated[int, typer.Argument(metavar="ID", min=1, help="As `cyto runs` shows it.")]
_DURATION = re.compile(r"([0-9]{1,6})(s|m|h)?")
_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600}
_MOST_LINES = 5000
#: Between two looks at a run that goes on.
_POLL_SECONDS = 0.5


def _timeout(text: str) -> int:
    match = _DURATION.fullmatch(text)
    if text and not match:
        raise usage(f"`{text}` isn't a time.", "Write it like 90s, 10m or 2h.")
    return int(match[1]) * _SECONDS[match[2] or ""] if match else 0


def run(
    component: Annotated[str, typer.Argument(metavar="COMPONENT", help="Whose image, settings and rights.")],
    command: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="-- COMMAND...", help="A program and its arguments; of a cron or job its own."
        ),
    ] = None,
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Don't wait; print the run's id.")] = False,
    timeout: Annotated[str, typer.Option(help="How long it may take, like 10m. Else an hour.")] = "",
    tenant: Tenant = "",
    project: Project = "",
    environment: Environment = "production",
    as_json: Json = False,
) -> None:
    """Run a command once, in a fresh replica of the serving release. Its exit code becomes that of cyto."""
    where, api = place.cell(tenant, project, environment), Api()
    body = {"component": component, "command": command or [], "timeout": _timeout(timeout)}
    found = api.post(f"{where.path}/runs", body)
    if detach:
        output.as_json(found) if as_json else output.say(str(found["id"]))
        return
    output.note(f"Run {found['id']} of {component} v{found['release']}…")
    try:
        found = _followed(api, where.path, found, quiet=as_json)
    except KeyboardInterrupt:
        output.note(f"It goes on. `cyto runs show {found['id']}`, `cyto runs cancel {found['id']}`.")
        raise
    if as_json:
        output.as_json(found)
    _ended(found, shown=as_json)


def _followed(api: Api, path: str, run: dict[str, Any], *, quiet: bool) -> dict[str, Any]:
    """The run once it has ended and its lines have come; they are printed unless ``quiet``."""
    last = 0
    while True:
        try:
            found = api.get(f"{path}/runs/{run['id']}")
            rows = api.get(f"{path}/logs", replica=run["replica"], after=last or 1, limit=_MOST_LINES)
        except CliError as error:
            if error.exit not in (UNREACHABLE, PLATFORM):
                raise
            output.note(f"       {error.message} Trying again…")
            time.sleep(2)
            continue
        for row in rows:
            last = row["id"]
            if not quiet:
                output.say(row["text"])
        if rows:
            continue
        if found["lines_complete"]:
            return found
        time.sleep(_POLL_SECONDS)


def _ended(found: dict[str, Any], *, shown: bool) -> None:
    """Leave with the process's own exit code; where it has none, with that of what failed."""
    if found["state"] == "succeeded":
        return
    code = found["exit_code"]
    reason = found["reason"] or (f"Its process ended with code {code}." if code is not None else "")
    if found["state"] == "failed" and code:
        if found["reason"]:
            output.note(f"       {found['reason']}")
        raise typer.Exit(code)
    raise CliError(
        f"Run {found['id']} is {found['state']}. {reason}".strip(),
        f"`cyto runs show {found['id']}` has what is known.", "run-failed", FAILED, shown=shown,
    )  # fmt: skip


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    words = f"{row['program']} …" if row["words"] > 1 else row["program"]
    return row | {
        "what": words or row["kind"],
        "release": f"v{row['release']}",
        "created_at": output.ago(row["scheduled_for"] or row["created_at"]),
        "created_by": output.person(row["created_by"]),
        "exit": row["exit_code"],
    }


@runs.command("list")
def list_runs(
    component: Annotated[str, typer.Option("--component", "-c", help="Of this component alone.")] = "",
    limit: Limit = 20, before: Before = 0, tenant: Tenant = "", project: Project = "",
    environment: Environment = "production", as_json: Json = False,
) -> None:  # fmt: skip
    """Runs, newest first."""
    path = f"{place.cell(tenant, project, environment).path}/runs"
    rows = Api().get(path, component=component, limit=limit, before=before or None)
    columns = {"id": "RUN", "component": "COMPONENT", "what": "WHAT", "release": "RELEASE", "state": "STATE",
               "exit": "EXIT", "created_by": "BY", "created_at": "WHEN", "reason": "WHY"}  # fmt: skip
    empty = "Nothing was run yet: `cyto run COMPONENT -- COMMAND`."
    output.table(rows if as_json else [_shown(row) for row in rows], columns, raw=as_json, empty=empty)


@runs.command("show")
def show(
    number: Number, tenant: Tenant = "", project: Project = "", environment: Environment = "production",
    as_json: Json = False,
) -> None:  # fmt: skip
    """A run, and the last lines that it wrote."""
    found = Api().get(f"{place.cell(tenant, project, environment).path}/runs/{number}")
    lines = found["last_lines"]
    output.facts(found if as_json else {k: v for k, v in found.items() if k != "last_lines"}, raw=as_json)
    for line in lines if not as_json else ():
        output.say(f"  {line}")


@runs.command("cancel")
def cancel(
    number: Number, tenant: Tenant = "", project: Project = "", environment: Environment = "production",
    as_json: Json = False,
) -> None:  # fmt: skip
    """End a run that goes on."""
    answer = Api().post(f"{place.cell(tenant, project, environment).path}/runs/{number}/cancel")
    output.done(answer, f"Run {number} is {answer['state']}.", raw=as_json)


@schedules.command("list")
def list_schedules(
    tenant: Tenant = "", project: Project = "", environment: Environment = "production", as_json: Json = False
) -> None:
    """Schedules of the serving release, in UTC."""
    rows = Api().get(f"{place.cell(tenant, project, environment).path}/schedules")
    for row in rows if not as_json else ():
        last = row["last"]
        row |= {
            "next_at": row["next_at"][:16].replace("T", " "),
            "last_state": f"{last['state']} {output.ago(last['scheduled_for'])}" if last else "never",
        }
    columns = {
        "component": "COMPONENT",
        "schedule": "SCHEDULE",
        "next_at": "NEXT (UTC)",
        "last_state": "LAST",
    }
    empty = "No component of kind cron serves: declare one with a `schedule` and push."
    output.table(rows, columns, raw=as_json, empty=empty)


def register(app: typer.Typer) -> None:
    app.command()(run)
    app.add_typer(runs, name="runs")
    app.add_typer(schedules, name="schedules")
