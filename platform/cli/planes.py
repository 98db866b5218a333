"""Data planes and their nodes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli import output
from cli.api import Api, part
from cli.errors import usage
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


def _text(file: Path) -> str:
    try:
        return file.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise usage(f"{file} can't be read ({type(error).__name__}).", "Name a kubeconfig.") from None


@planes.command("add")
def add(
    name: Annotated[str, typer.Argument(metavar="PLANE")],
    kubeconfig: Annotated[Path, typer.Option(help="File with everything inline (`--flatten`).")],
    owner: Annotated[str, typer.Option(help="Tenant of a private plane; none: shared.")] = "",
    as_json: Json = False,
) -> None:
    """Add a Kubernetes cluster as a plane."""
    answer = Api().post("/planes", {"name": name, "kubeconfig": _text(kubeconfig), "owner": owner})
    output.done(answer, f"{name} is a plane now: Kubernetes {answer['version']}.", raw=as_json)


@planes.command("kubeconfig")
def replace_kubeconfig(
    plane: Annotated[str, typer.Argument(metavar="PLANE")],
    kubeconfig: Annotated[Path, typer.Option(help="File with everything inline (`--flatten`).")],
    as_json: Json = False,
) -> None:
    """Give a Kubernetes plane other credentials."""
    answer = Api().call("PUT", f"/planes/{part(plane)}/kubeconfig", {"kubeconfig": _text(kubeconfig)})
    output.done(answer, f"{plane} has another kubeconfig: Kubernetes {answer['version']}.", raw=as_json)


@planes.command("bind")
def bind(
    tenant: Annotated[str, typer.Argument(metavar="TENANT")],
    environment: Annotated[str, typer.Argument(metavar="ENVIRONMENT")],
    plane: Annotated[str, typer.Argument(metavar="PLANE")],
    as_json: Json = False,
) -> None:
    """Let an environment's cells be on a plane; nothing may run in them."""
    path = f"/tenants/{part(tenant)}/environments/{part(environment)}/plane"
    answer = Api().call("PUT", path, {"plane": plane})
    output.done(answer, f"{environment} of {tenant} is on {plane} now.", raw=as_json)


@planes.command("places")
def places(plane: Annotated[str, typer.Argument(metavar="PLANE")], as_json: Json = False) -> None:
    """Cells' namespaces on a Kubernetes plane and how they are."""
    rows = Api().get(f"/planes/{part(plane)}/places")
    if as_json:
        output.as_json(rows)
        return
    for row in rows:
        row["cell"] = f"{row['tenant']}/{row['project']}/{row['environment']}"
        row["checked_at"] = output.ago(row["checked_at"])
    columns = {"location": "NAMESPACE", "cell": "CELL", "state": "STATE", "revision": "REVISION",
               "checked_at": "CHECKED", "problems": "PROBLEMS"}  # fmt: skip
    output.table(rows, columns, raw=False, empty="No cell has its place on this plane.")


@planes.command("revoke")
def revoke(number: Annotated[int, typer.Argument(metavar="NODE-ID", min=1)], as_json: Json = False) -> None:
    """End a node's certificates at once."""
    answer = Api().post(f"/nodes/{number}/revoke")
    output.done(answer, f"Node {number} is revoked.", raw=as_json)


def register(app: typer.Typer) -> None:
    app.add_typer(planes, name="planes")
