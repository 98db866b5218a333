"""What happens: logs, edges, explanations."""

from __future__ import annotations

import time
from typing import Annotated, Any

import typer

from cli import output, place
from cli.api import Api
from cli.errors import PLATFORM, UNREACHABLE, CliError, usage
from cli.output import Json
from cli.place import Environment, Project, Tenant
from cli.topics import topic

connections = topic("Connections: which calls the serving release declares.")
edges = topic("Edges: who called whom lately, allowed and denied.")
_MOST_LINES = 5000
Minutes = Annotated[int, typer.Option(min=1, max=2880, help="How far back to look.")]


def logs(
    component: Annotated[str, typer.Argument(metavar="[COMPONENT]", help="Of this component alone.")] = "",
    follow: Annotated[
        bool, typer.Option("--follow", "--tail", "-f", help="Go on as lines are written.")
    ] = False,
    lines: Annotated[
        int, typer.Option("--lines", "-n", min=1, max=_MOST_LINES, help="How many of the newest lines.")
    ] = 200,
    tenant: Tenant = "",
    project: Project = "",
    environment: Environment = "production",
    as_json: Json = False,
) -> None:
    """What the processes write. With --follow, `--json` prints a document on each line."""
    where, api = place.cell(tenant, project, environment), Api()
    rows = api.get(f"{where.path}/logs", component=component, limit=lines)
    if as_json and not follow:
        output.as_json(rows)
        return
    if not rows:
        output.note("Nothing was written yet.")
    last = 0
    while True:
        for row in rows:
            last = row["id"]
            _line(row, as_json)
        if not follow:
            return
        time.sleep(1)
        rows = _more(api, f"{where.path}/logs", component, last)


def _more(api: Api, path: str, component: str, last: int) -> list[dict[str, Any]]:
    """Lines after one; none while the platform is away, which a person who follows is told."""
    try:
        # An id of 0 would mean the newest lines, not those from the beginning.
        return api.get(path, component=component, after=last or 1, limit=_MOST_LINES)
    except CliError as error:
        if error.exit not in (UNREACHABLE, PLATFORM):
            raise
        output.note(f"       {error.message} Trying again…")
        time.sleep(2)
        return []


def _line(row: dict[str, Any], as_json: bool) -> None:
    if as_json:
        output.line_of_json(row)
    else:
        output.say(f"{row['at'][:19]} {row['component']}[{row['replica']}] {row['text']}")


def _target(row: dict[str, Any]) -> str:
    """The destination as `cyto why` takes it."""
    host = row["remote"] if row["destination"] == "internet" and row["remote"] else row["destination"]
    return f"[{host}]:{row['port']}" if ":" in host else f"{host}:{row['port']}"


def _edges(where: place.Place, minutes: int, denied: bool, as_json: bool) -> None:
    rows = Api().get(f"{where.path}/edges", minutes=minutes, denied="true" if denied else None)
    if as_json:
        output.as_json(rows)
        return
    shown = [
        {
            **row,
            "to": f"{_target(row)}/{row['protocol']}",
            "way": {"egress": "out", "ingress": "in"}.get(row["direction"]),
            "verdict": output.VERDICTS.get(row["verdict"], row["verdict"]),
            "last_at": output.ago(row["last_at"]),
        }
        for row in rows
    ]
    columns = {"source": "FROM", "to": "TO", "way": "SEEN GOING", "verdict": "VERDICT", "reason": "REASON",
               "rule": "RULE", "packets": "PACKETS", "last_at": "LAST"}  # fmt: skip
    empty = "Nothing was refused." if denied else "Nothing was seen."
    output.table(shown, columns, raw=False, empty=f"{empty[:-1]} in the last {minutes} minutes.")
    row = next((row for row in rows if row["verdict"] != "allowed"), None)
    if row:
        output.note(f"\n{row['reason']}: {row['sentence']}")
        known = (
            row["direction"] == "egress"
            and row["remote"] != "others"
            and " " not in f"{row['source']}{row['destination']}"
        )
        if row["fix"]:
            output.note(f"What would open it:\n{row['fix']}")
        elif known:
            output.note(f"`cyto why {row['source']} {_target(row)}` says what would open it.")


@edges.command("list")
def list_edges(
    denied: Annotated[
        bool, typer.Option("--denied", help="Refused calls alone, and those that audit lets pass.")
    ] = False,
    minutes: Minutes = 60,
    tenant: Tenant = "",
    project: Project = "",
    environment: Environment = "production",
    as_json: Json = False,
) -> None:
    """Edges that the kernel saw lately."""
    _edges(place.cell(tenant, project, environment), minutes, denied, as_json)


def denied(
    minutes: Minutes = 60,
    tenant: Tenant = "",
    project: Project = "",
    environment: Environment = "production",
    as_json: Json = False,
) -> None:
    """Calls that were refused lately, or would have been but for audit, with the reason."""
    _edges(place.cell(tenant, project, environment), minutes, True, as_json)


@connections.command("list")
def list_connections(
    tenant: Tenant = "", project: Project = "", environment: Environment = "production", as_json: Json = False
) -> None:
    """Connections that the serving release declares; `cyto edges` shows what was really called."""
    rows = Api().get(f"{place.cell(tenant, project, environment).path}/connections")
    for row in rows if not as_json else ():
        row["to"] = row["to"] or row["external"]
    columns = {"component": "COMPONENT", "name": "NAME", "to": "TO", "port": "PORT", "protocol": "PROTOCOL"}
    output.table(rows, columns, raw=as_json, empty="No connection is declared.")


def parse_target(text: str) -> tuple[str, int, str]:
    """Host, port and protocol of ``name``, ``name:port``, ``name:port/udp``, ``[v6]:port`` or an address."""
    text, protocol = _without_protocol(text)
    if text.startswith("["):
        host, _, rest = text[1:].partition("]")
        port = rest.removeprefix(":")
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
    else:
        host, port = text, ""
    if not host or (port and not (port.isascii() and port.isdigit() and 0 < int(port) < 65536)):
        what = f"`{port}` isn't a port" if host else f"`{text}` names nothing to call"
        raise usage(f"{what}.", "Write it like api:9000 or [2001:db8::1]:443.")
    return host, int(port or 0), protocol


def _without_protocol(text: str) -> tuple[str, str]:
    """As `cyto edges` writes it; a network's ``/24`` and a project's ``shop/api`` stay."""
    before, _, last = text.rpartition("/")
    return (before, last) if before and last in ("tcp", "udp") else (text, "")


def why(
    source: Annotated[
        str, typer.Argument(metavar="FROM", help="Who calls: a component, `internet`, an address, `gateway`…")
    ],
    to: Annotated[
        str,
        typer.Argument(
            metavar="TO[:PORT]", help="Who is called: a component, project/component, address, network, host…"
        ),
    ],
    protocol: Annotated[str, typer.Option(help="tcp, udp or icmp; else whatever the port speaks.")] = "",
    tenant: Tenant = "",
    project: Project = "",
    environment: Environment = "production",
    as_json: Json = False,
) -> None:
    """Why a call is allowed or denied. If it is denied: the declaration that would open it. Without a port: for each."""
    host, port, spoken = parse_target(to)
    where = place.cell(tenant, project, environment)
    answer = Api().get(
        f"{where.path}/why", source=source, destination=host, port=port, protocol=protocol or spoken
    )
    if as_json:
        output.as_json(answer)
        return
    for number, one in enumerate(answer["answers"]):
        if number:
            print()
        _verdict(one, several=len(answer["answers"]) > 1)
    print()
    for word, end in (("from", answer["source"]), ("to", answer["destination"])):
        identity = f", identity {end['identity']}" if end["identity"] else ""
        output.say(f"{word:<4} {end['asked']}: {end['is']}{identity}")


def _verdict(one: dict[str, Any], *, several: bool) -> None:
    """One answer of `cyto why`: the verdict on its first line, what would open it at the end."""
    word = output.VERDICTS.get(one["verdict"], one["verdict"])
    port = f"{one['port']}/{one['protocol']}" if one["port"] else one["protocol"] or ""
    output.say(f"{word}  {one['endpoint'] or ''} {port}".rstrip() if several else word)
    output.say(one["sentence"])
    rule = f", rule {one['rule']}" if one["rule"] else ""
    output.say(f"reason {one['reason']}{rule}")
    if one["fix"]:
        output.say(f"\nWhat would open it:\n\n{one['fix']}")


def register(app: typer.Typer) -> None:
    app.command()(logs)
    app.add_typer(edges, name="edges")
    app.command()(denied)
    app.add_typer(connections, name="connections")
    app.command()(why)
