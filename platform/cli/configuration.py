"""Configuration and secrets of a cell."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from cli import output, place, progress
from cli.api import Api
from cli.errors import usage
from cli.output import Json
from cli.place import Environment, Project, Tenant
from cli.progress import Wait
from cli.topics import topic

config = topic("Configuration and secrets: the environment of the processes.")
Component = Annotated[str, typer.Option("--component", "-c", help="For this component alone.")]
_SECRET = "(secret)"  # noqa: S105  what is shown in a secret's place


def _shown(row: dict[str, Any] | None) -> str | None:
    if row is None:
        return None
    return _SECRET if row["secret"] else str(row["value"])


@config.command("list")
def list_variables(
    tenant: Tenant = "", project: Project = "", environment: Environment = "production", as_json: Json = False
) -> None:
    """Variables; secrets without their values."""
    rows = Api().get(f"{place.cell(tenant, project, environment).path}/config")
    for row in rows if not as_json else ():
        row |= {
            "value": _shown(row),
            "component": row["component"] or "all",
            "changed_by": output.person(row["changed_by"]),
            "changed_at": output.ago(row["changed_at"]),
        }
    columns = {"name": "NAME", "value": "VALUE", "component": "FOR", "changed_by": "BY", "changed_at": "WHEN"}
    output.table(rows, columns, raw=as_json, empty="No variables yet: `cyto config set NAME=value` sets one.")


def _by_name(rows: list[dict[str, Any]]) -> dict[tuple[str, str], dict[str, Any]]:
    return {(row["component"] or "", row["name"]): row for row in rows}


@config.command("diff")
def diff(
    one: Annotated[str, typer.Argument(metavar="ENVIRONMENT")],
    other: Annotated[str, typer.Argument(metavar="ENVIRONMENT")],
    tenant: Tenant = "",
    project: Project = "",
    as_json: Json = False,
) -> None:
    """What two environments have set differently. Of secrets it is known only whether they are there."""
    api = Api()
    left, right = (
        _by_name(api.get(f"{place.cell(tenant, project, name).path}/config")) for name in (one, other)
    )
    rows = [
        {
            "name": name,
            "component": component or None,
            one: _shown(left.get(key)),
            other: _shown(right.get(key)),
        }
        for key in sorted({*left, *right})
        for component, name in (key,)
        if _shown(left.get(key)) != _shown(right.get(key))
    ]
    for row in rows if not as_json else ():
        row |= {
            "component": row["component"] or "all",
            **{e: "(not set)" for e in (one, other) if row[e] is None},
        }
    columns = {"name": "NAME", "component": "FOR", one: one.upper(), other: other.upper()}
    output.table(rows, columns, raw=as_json, empty=f"{one} and {other} have the same variables set.")


def _pairs(words: list[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for word in words:
        name, sign, value = word.partition("=")
        if not sign or not name:
            # The word itself may be a secret that was pasted here: only what stands before `=` is repeated.
            raise usage(f"`{name[:20]}` isn't NAME=value.", "Write it like LOG_LEVEL=debug.")
        if name in found:
            raise usage(f"`{name}` is given twice.", "Give each variable one value.")
        found[name] = value
    return found


def _tell_changes(before: dict[tuple[str, str], Any], document: dict[str, Any]) -> None:
    """The change as a diff, on standard error; secrets by name only."""
    component = document["component"]
    for name, value in document.get("set", {}).items():
        known = _shown(before.get((component, name)))
        if known is None:
            output.note(output.safe(f"  + {name}={value}"))
        elif known != value:
            output.note(output.safe(f"  ~ {name}={value}   (was {known})"))
    for name in document.get("secret", {}):
        output.note(f"  {'~' if (component, name) in before else '+'} {name}={_SECRET}")
    for name in document.get("unset", []):
        if (component, name) in before:
            output.note(f"  - {name}")


def _change(where: place.Place, document: dict[str, Any], wait: bool, as_json: bool) -> None:
    api = Api()
    before = _by_name(api.get(f"{where.path}/config"))
    answer = api.call("PATCH", f"{where.path}/config", document)
    _tell_changes(before, document)
    if not answer["changed"]:
        output.done(answer, "Nothing is different from before.", raw=as_json)
    elif not answer["deployment"]:
        text = "The configuration is changed; the first release takes it along."
        output.done(answer, text, raw=as_json)
    else:
        text = "The configuration is changed."
        progress.after(api, where, answer["deployment"], answer, text, wait=wait, raw=as_json)


@config.command("set")
def set_variables(
    pairs: Annotated[list[str], typer.Argument(metavar="NAME=value...")],
    component: Component = "",
    wait: Wait = True,
    tenant: Tenant = "",
    project: Project = "",
    environment: Environment = "production",
    as_json: Json = False,
) -> None:
    """Set variables, all of them in one release. For secrets use `cyto config secret`."""
    document = {"set": _pairs(pairs), "component": component}
    _change(place.cell(tenant, project, environment), document, wait, as_json)


@config.command("secret")
def set_secret(
    name: Annotated[str, typer.Argument(metavar="NAME")],
    component: Component = "",
    wait: Wait = True,
    tenant: Tenant = "",
    project: Project = "",
    environment: Environment = "production",
    as_json: Json = False,
) -> None:
    """Set a secret; its value is asked for, or read from standard input if that isn't a terminal."""
    where = place.cell(tenant, project, environment)
    if "=" in name:
        raise usage(
            "A secret's value isn't written on the command line, where others can read it.",
            f"Write `cyto config secret {name.partition('=')[0]}`; the value is asked for. Choose a new value.",
        )
    if sys.stdin.isatty():
        value = output.ask(f"Value of {name}", "", hide=True)
    else:
        value = sys.stdin.read().removesuffix("\n")
    if not value:
        raise usage(f"The value of {name} is empty.", f"`cyto config unset {name}` takes a secret away.")
    _change(where, {"secret": {name: value}, "component": component}, wait, as_json)


@config.command("unset")
def unset(
    names: Annotated[list[str], typer.Argument(metavar="NAME...")],
    component: Component = "",
    wait: Wait = True,
    tenant: Tenant = "",
    project: Project = "",
    environment: Environment = "production",
    as_json: Json = False,
) -> None:
    """Take variables and secrets away, all in one release."""
    document = {"unset": names, "component": component}
    _change(place.cell(tenant, project, environment), document, wait, as_json)


def register(app: typer.Typer) -> None:
    app.add_typer(config, name="config")
