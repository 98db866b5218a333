"""What happens: logs, edges, explanations."""

from __future__ import annotations

import time
from typing import Annotated, Any

import typer

from cli import output, place
from cli.api import USAGE, Api, CliError
from cli.output import Json
from cli.place import Environment, Project, Tenant

connections = typer.Typer(help="Who calls whom: declared, seen and refused.", invoke_without_command=True)


def logs(
    component: Annotated[str, typer.Argument(help="Of this component alone.")] = "",
    follow: Annotated[
        bool, typer.Option("--follow", "--tail", "-f", help="Go on as lines are written.")
    ] = False,
    lines: Annotated[int, typer.Option("--lines", "-n", min=1, max=5000)] = 200,
    tenant: Tenant = "",
    project: Project = "",
    environment: Environment = "production",
    as_json: Json = False,
) -> None:
    """What the processes write."""
    where, api = place.cell(tenant, project, environment), Api()
    rows = api.get(f"{where.path}/logs", component=component, limit=lines)
    if as_json and not follow:
        output.as_json(rows)
        return
    if not rows and not follow:
        output.note("Nothing was written yet.")
    last = 0
    while True:
        for row in rows:
            last = row["id"]
            _line(row, as_json)
        if not follow:
            return
        time.sleep(1)
        rows = api.get(f"{where.path}/logs", component=component, after=last or 1, limit=1000)


def _line(row: dict[str, Any], as_json: bool) -> None:
    if as_json:
        output.as_json(row)
    else:
        print(f"{row['at'][:19]} {row['component']}[{row['replica']}] {row['text']}", flush=True)


def _edges(where: place.Place, minutes: int, denied: bool, as_json: bool) -> None:
    rows = Api().get(f"{where.path}/edges", minutes=minutes, denied="true" if denied else None)
    columns = {"source": "FROM", "destination": "TO", "remote": "ADDRESS", "port": "PORT", "protocol": "PROTOCOL",
               "verdict": "VERDICT", "reason": "REASON", "rule": "RULE", "packets": "PACKETS"}  # fmt: skip
    empty = "Nothing was refused." if denied else "Nothing was seen."
    output.table(rows, columns, raw=as_json, empty=empty)
    denials = [row for row in rows if row["verdict"] == "denied"]
    if denials and not as_json:
        row = denials[0]
        output.note(
            f"\n{row['sentence']} `cyto why {row['source']} {row['destination']}:{row['port']}` says more."
        )


@connections.callback()
def connections_default(
    context: typer.Context, tenant: Tenant = "", project: Project = "", environment: Environment = "production",
    as_json: Json = False,
) -> None:  # fmt: skip
    if context.invoked_subcommand is None:
        _edges(place.cell(tenant, project, environment), 60, False, as_json)


@connections.command("list")
def list_edges(
    denied: Annotated[bool, typer.Option("--denied", help="Refused calls alone.")] = False,
    minutes: Annotated[int, typer.Option(min=1, max=2880)] = 60,
    tenant: Tenant = "",
    project: Project = "",
    environment: Environment = "production",
    as_json: Json = False,
) -> None:
    """Edges that the kernel saw lately."""
    _edges(place.cell(tenant, project, environment), minutes, denied, as_json)


@connections.command("declared")
def declared(
    tenant: Tenant = "", project: Project = "", environment: Environment = "production", as_json: Json = False
) -> None:
    """Connections that the serving release declares."""
    rows = Api().get(f"{place.cell(tenant, project, environment).path}/connections")
    if as_json:
        output.as_json(rows)
        return
    for row in rows:
        for key, value in row.items():
            row[key] = str(value) if isinstance(value, dict) else value
    columns = {key: key.upper().replace("_", " ") for key in (rows[0] if rows else {})}
    output.table(rows, columns, raw=False, empty="No connection is declared.")


def _target(text: str) -> tuple[str, int]:
    """``name``, ``name:port``, ``[v6]:port`` or an address."""
    if text.startswith("["):
        host, _, rest = text[1:].partition("]")
        port = rest.removeprefix(":")
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
    else:
        host, port = text, ""
    if port and not (port.isascii() and port.isdigit() and int(port) < 65536):
        raise CliError(
            f"`{port}` isn't a port.", "Write it like api:9000 or [2001:db8::1]:443.", "usage", USAGE
        )
    return host, int(port or 0)


def why(
    source: Annotated[str, typer.Argument(metavar="FROM", help="A component, or `internet`.")],
    to: Annotated[
        str, typer.Argument(metavar="TO[:PORT]", help="component, project/component, address or host.")
    ],
    protocol: Annotated[str, typer.Option(help="tcp or udp.")] = "tcp",
    tenant: Tenant = "",
    project: Project = "",
    environment: Environment = "production",
    as_json: Json = False,
) -> None:
    """Why a call is allowed or denied, and the declaration that would open it."""
    host, port = _target(to)
    where = place.cell(tenant, project, environment)
    answer = Api().get(f"{where.path}/why", source=source, destination=host, port=port, protocol=protocol)
    if as_json:
        output.as_json(answer)
        return
    print("allowed" if answer["allowed"] else "denied")
    print(answer["sentence"])
    rule = f", rule {answer['rule']}" if answer.get("rule") else ""
    print(f"reason {answer['reason']}{rule}")
    if answer.get("fix"):
        print(f"\nWhat would open it:\n\n{answer['fix']}")


def register(app: typer.Typer) -> None:
    app.command()(logs)
    app.add_typer(connections, name="connections")
    app.command()(why)
