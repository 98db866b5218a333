"""Configuration and secrets of a cell."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from cli import delivery, output, place
from cli.api import USAGE, Api, CliError
from cli.output import Json
from cli.place import Environment, Project, Tenant

topic = typer.Typer(
    help="Configuration and secrets: the environment of the processes.", invoke_without_command=True
)
Component = Annotated[str, typer.Option("--component", "-c", help="For this component alone.")]
Wait = Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until the release with it serves.")]


def _list(tenant: str, project: str, environment: str, as_json: bool) -> None:
    rows = Api().get(f"{place.cell(tenant, project, environment).path}/config")
    columns = {
        "name": "NAME",
        "value": "VALUE",
        "secret": "SECRET",
        "component": "FOR",
        "changed_by": "CHANGED BY",
    }
    output.table(rows, columns, raw=as_json, empty="No variables yet: `cyto config set NAME=value` sets one.")


@topic.callback()
def default(
    context: typer.Context, tenant: Tenant = "", project: Project = "", environment: Environment = "production",
    as_json: Json = False,
) -> None:  # fmt: skip
    if context.invoked_subcommand is None:
        _list(tenant, project, environment, as_json)


@topic.command("list")
def list_variables(
    tenant: Tenant = "", project: Project = "", environment: Environment = "production", as_json: Json = False
) -> None:
    """Variables; secrets without their values."""
    _list(tenant, project, environment, as_json)


def _pairs(words: list[str]) -> dict[str, str]:
    found = {}
    for word in words:
        name, sign, value = word.partition("=")
        if not sign or not name:
            raise CliError(f"`{word}` isn't NAME=value.", "Write it like LOG_LEVEL=debug.", "usage", USAGE)
        found[name] = value
    return found


def _change(where: place.Place, document: dict[str, Any], wait: bool, as_json: bool) -> None:
    api = Api()
    answer = api.call("PATCH", f"{where.path}/config", document)
    delivery.after(
        api, where, answer.get("deployment"), answer, wait, as_json, "The configuration is changed."
    )


@topic.command("set")
def set_variables(
    pairs: Annotated[list[str], typer.Argument(metavar="NAME=value…")],
    component: Component = "",
    tenant: Tenant = "",
    project: Project = "",
    environment: Environment = "production",
    wait: Wait = True,
    as_json: Json = False,
) -> None:
    """Set variables, all of them in one release. For secrets use `cyto config secret`."""
    where = place.cell(tenant, project, environment)
    _change(where, {"set": _pairs(pairs), "component": component}, wait, as_json)


@topic.command("secret")
def set_secret(
    name: str,
    component: Component = "",
    tenant: Tenant = "",
    project: Project = "",
    environment: Environment = "production",
    wait: Wait = True,
    as_json: Json = False,
) -> None:
    """Set a secret; its value is asked for, or read from standard input if that isn't a terminal."""
    where = place.cell(tenant, project, environment)
    if sys.stdin.isatty():
        value = typer.prompt(f"Value of {name}", hide_input=True, err=True)
    else:
        value = sys.stdin.read().rstrip("\n")
    _change(where, {"secret": {name: value}, "component": component}, wait, as_json)


@topic.command("unset")
def unset(
    names: list[str],
    component: Component = "",
    tenant: Tenant = "",
    project: Project = "",
    environment: Environment = "production",
    wait: Wait = True,
    as_json: Json = False,
) -> None:
    """Take variables and secrets away, all in one release."""
    where = place.cell(tenant, project, environment)
    _change(where, {"unset": names, "component": component}, wait, as_json)


def register(app: typer.Typer) -> None:
    app.add_typer(topic, name="config")
