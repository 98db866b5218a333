"""Data planes and their nodes."""

from __future__ import annotations

from typing import Annotated

import typer

from cli import output
from cli.api import Api, part
from cli.output import Json
from cli.topics import topic

planes = topic("Data planes and nodes (platform admins only).")


def _planes(as_json: bool) -> None:
    rows = Api().get("/planes")
    if as_json:
        output.as_json(rows)
        return
    nodes = []
    for plane in rows:
        for node in plane.get("nodes", []) or [{}]:
            nodes.append(
                {"plane": plane["name"], "engine": plane["engine"], "generation": plane["generation"], **node}
            )
    for node in nodes:
        node["last_seen_at"] = output.ago(node.get("last_seen_at"))
    columns = {"plane": "PLANE", "engine": "ENGINE", "name": "NODE", "kind": "KIND", "generation": "WANTED",
               "acknowledged": "APPLIED", "last_seen_at": "HEARD OF", "problems": "PROBLEMS"}  # fmt: skip
    output.table(nodes, columns, raw=False, empty="There is no data plane.")


@planes.command("list")
def list_planes(as_json: Json = False) -> None:
    """Planes with their nodes and how they are."""
    _planes(as_json)


@planes.command("token")
def token(
    plane: Annotated[str, typer.Argument(metavar="PLANE")],
    kind: Annotated[str, typer.Option(help="agent or builder.")] = "agent",
    as_json: Json = False,
) -> None:
    """A one-time token with which a node enrols."""
    answer = Api().post(f"/planes/{part(plane)}/enrolment-tokens", {"kind": kind})
    if as_json:
        output.as_json(answer)
        return
    output.note("It is good for one node and can't be shown again.")
    print(answer["token"])


@planes.command("revoke")
def revoke(number: Annotated[int, typer.Argument(metavar="NODE-ID", min=1)], as_json: Json = False) -> None:
    """End a node's certificates at once."""
    answer = Api().post(f"/nodes/{number}/revoke")
    output.done(answer, f"Node {number} is revoked.", raw=as_json)


def register(app: typer.Typer) -> None:
    app.add_typer(planes, name="planes")
