"""Administration of the platform's edge: who may not come."""

from __future__ import annotations

import re
from typing import Annotated

import typer

from cli import output
from cli.api import Api
from cli.errors import usage
from cli.output import Json
from cli.topics import topic

admin = topic("The whole platform (platform admins only).")
deny = topic("Networks that may not come to the public ports (platform admins only).")
Network = Annotated[str, typer.Argument(metavar="CIDR")]
_TIME = re.compile(r"([1-9]\d{0,5})([mhd])")
_SECONDS = {"m": 60, "h": 3600, "d": 86400}


def _seconds(text: str) -> int | None:
    if not text:
        return None
    match = _TIME.fullmatch(text)
    if not match:
        raise usage(f"`{text}` isn't a time.", "Write it like 30m, 24h or 7d.")
    return int(match.group(1)) * _SECONDS[match.group(2)]


@deny.command("list")
def list_denied(as_json: Json = False) -> None:
    """Networks that may not come, the newest first."""
    rows = Api().get("/admin/denied")
    if not as_json:
        for row in rows:
            row["since"] = output.ago(row["since"])
            row["until"] = (row["until"] or "removed")[:16].replace("T", " ")
    columns = {"network": "NETWORK", "reason": "REASON", "by": "BY", "since": "SINCE", "until": "UNTIL"}
    output.table(rows, columns, raw=as_json, empty="Nobody is denied.")


@deny.command("add")
def add(
    network: Network,
    reason: Annotated[str, typer.Option(help="Why, for those who read the list.")],
    lasting: Annotated[str, typer.Option("--for", metavar="TIME", help="Like 30m, 24h, 7d.")] = "",
    force: Annotated[bool, typer.Option("--force", help="Even if it holds your own address.")] = False,
    as_json: Json = False,
) -> None:
    """Deny a network or an address the public ports of every node, at their edge."""
    body = {"network": network, "reason": reason, "seconds": _seconds(lasting), "force": force}
    row = Api().post("/admin/denied", body)
    until = f" until {row['until'][:16].replace('T', ' ')} UTC" if row["until"] else ""
    output.done(row, f"{row['network']} is denied{until}.", raw=as_json)


@deny.command("remove")
def remove(network: Network, as_json: Json = False) -> None:
    """Let a network come again."""
    answer = Api().call("DELETE", "/admin/denied", network=network)
    output.done(answer, f"{network} may come again.", raw=as_json)


def register(app: typer.Typer) -> None:
    admin.add_typer(deny, name="deny")
    app.add_typer(admin, name="admin")
