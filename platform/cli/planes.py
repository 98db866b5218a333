"""Data planes and their nodes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from cli import output
from cli.api import Api, part
from cli.errors import usage
from cli.output import Json
from cli.topics import topic

planes = topic("Data planes and nodes: your tenants' own; all of them for platform admins.")


def _planes(as_json: bool) -> None:
    rows = Api().get("/planes")
    if as_json:
        output.as_json(rows)
        return
    nodes = [row for plane in rows for row in _nodes(plane)]
    columns = {"plane": "PLANE", "engine": "ENGINE", "owner": "OWNER", "state": "STATE", "id": "ID", "name": "NODE",
               "kind": "KIND", "generation": "WANTED", "acknowledged": "APPLIED", "last_seen_at": "HEARD OF",
               "problems": "PROBLEMS"}  # fmt: skip
    empty = "There is no data plane that you can see. Make one: `cyto planes add NAME --private TENANT`."
    output.table(nodes, columns, raw=False, empty=empty)


def _nodes(plane: dict[str, Any]) -> list[dict[str, Any]]:
    """A row for each node of a plane, one without a node if it has none."""
    first = {
        "plane": plane["name"],
        "engine": plane["engine"],
        "owner": plane["owner"] or "shared",
        "state": _state(plane),
        "generation": plane["generation"],
    }
    nodes = plane.get("nodes") or [{}]
    return [{**first, **node, "last_seen_at": output.ago(node.get("last_seen_at"))} for node in nodes]


def _state(plane: dict[str, Any]) -> str:
    if not plane["offline_since"]:
        return "online"
    if not plane["nodes"]:
        return "not joined yet"
    return f"offline, last heard of {output.ago(plane['offline_since'])}"


@planes.command("list")
def list_planes(as_json: Json = False) -> None:
    """Planes with their nodes and how they are."""
    _planes(as_json)


@planes.command("show")
def show(plane: Annotated[str, typer.Argument(metavar="PLANE")], as_json: Json = False) -> None:
    """One plane: since when it is offline, its nodes, what is wrong with them."""
    answer = Api().get(f"/planes/{part(plane)}")
    if as_json:
        output.as_json(answer)
        return
    columns = {"id": "ID", "name": "NODE", "kind": "KIND", "generation": "WANTED", "acknowledged": "APPLIED",
               "last_seen_at": "HEARD OF", "problems": "PROBLEMS"}  # fmt: skip
    owner = f"private to {answer['owner']}" if answer["owner"] else "shared"
    print(f"{answer['name']}: {answer['engine']}, {owner}, {_state(answer)}.")
    if answer["offline_since"] and answer["nodes"]:
        print("What runs there goes on and is enforced; it catches up when it returns.")
    rows = [row for row in _nodes(answer) if row.get("name")]
    output.table(rows, columns, raw=False, empty="No node has joined. Make a command: `cyto planes token`.")


@planes.command("token")
def token(
    plane: Annotated[str, typer.Argument(metavar="PLANE")],
    kind: Annotated[
        str, typer.Option(help="agent, controller or builder; none: what the plane is joined with.")
    ] = "",
    as_json: Json = False,
) -> None:
    """A one-time token, and the command that joins a machine or cluster with it."""
    answer = Api().post(f"/planes/{part(plane)}/enrolment-tokens", {"kind": kind})
    if as_json:
        output.as_json(answer)
        return
    _invitation(answer)


def _invitation(answer: dict[str, Any]) -> None:
    """The command, or the token alone where nothing is joined by a command."""
    output.note("It is good once, for an hour, and can't be shown again.")
    if answer["command"] and answer["local"]:
        output.note(
            "It works on the platform's own machine only: its operator has set no CYTOPLANE_AGENTS_NAMES."
        )
    print(answer["command"] or answer["token"])


def _text(file: Path) -> str:
    try:
        return file.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise usage(f"{file} can't be read ({type(error).__name__}).", "Name a kubeconfig.") from None


@planes.command("add")
def add(
    name: Annotated[str, typer.Argument(metavar="PLANE")],
    engine: Annotated[str, typer.Option(help="machine or kubernetes.")] = "machine",
    private: Annotated[
        str, typer.Option("--private", "--owner", help="The tenant whose own it is; none: shared.")
    ] = "",
    kubeconfig: Annotated[
        Path | None, typer.Option(help="A cluster that the platform drives: everything inline (`--flatten`).")
    ] = None,
    net: Annotated[
        int | None, typer.Option(help="Its address ranges, 0 to 15; none: the platform's own.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Make a plane and show the command that joins it; with --kubeconfig a cluster that workers drive."""
    body: dict[str, Any] = {"name": name, "owner": private, "engine": engine, "net": net}
    if kubeconfig is not None:
        body |= {"kubeconfig": _text(kubeconfig), "engine": "kubernetes"}
    answer = Api().post("/planes", body)
    if as_json:
        output.as_json(answer)
    elif "join" in answer:
        where = "on the machine, as root" if engine == "machine" else "where `helm` reaches the cluster"
        output.note(f"{name} waits to be joined. Run this {where}:")
        _invitation(answer["join"])
    else:
        output.done(answer, f"{name} is a plane now: Kubernetes {answer['version']}.", raw=False)


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
def revoke(what: Annotated[str, typer.Argument(metavar="PLANE|NODE-ID")], as_json: Json = False) -> None:
    """End the certificates of a plane's nodes, or of one node, at once. What runs there goes on."""
    if what.isdigit():
        answer = Api().post(f"/nodes/{part(what)}/revoke")
        output.done(answer, f"Node {what} is revoked.", raw=as_json)
        return
    answer = Api().post(f"/planes/{part(what)}/revoke")
    output.done(answer, f"{what} is revoked: nothing of it opens anything any more.", raw=as_json)


@planes.command("remove")
def remove(
    plane: Annotated[str, typer.Argument(metavar="PLANE")],
    confirm: Annotated[str, typer.Option(help="The plane's name once more.")] = "",
    as_json: Json = False,
) -> None:
    """Forget a plane that no environment is on and where nothing is left."""
    answer = Api().call("DELETE", f"/planes/{part(plane)}", confirm=confirm)
    output.done(answer, f"{plane} is gone.", raw=as_json)


def register(app: typer.Typer) -> None:
    app.add_typer(planes, name="planes")
