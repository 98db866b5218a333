"""Projects, their environments and components."""

from __future__ import annotations

from typing import Annotated

import typer

from cli import output, place
from cli.api import Api, part
from cli.errors import usage
from cli.output import Json
from cli.place import Environment, Project, Tenant
from cli.tenants import Confirm, confirmed
from cli.topics import topic

projects = topic("Projects: what a tenant builds together.")
components = topic("Components of what serves.")
environments = topic("Environments: where projects run, in the order of promotion.")


@projects.command("list")
def list_projects(tenant: Tenant = "", as_json: Json = False) -> None:
    """Projects of a tenant."""
    where = place.tenant(tenant)
    rows = Api().get(f"{where.tenant_path}/projects")
    columns = {"slug": "PROJECT", "description": "WHAT IT IS", "strict": "STRICT", "audit": "AUDIT"}
    empty = f"{where.tenant} has no project yet: `cyto projects create NAME` makes one."
    output.table(rows, columns, raw=as_json, empty=empty)


@projects.command("create")
def create(
    name: Annotated[str, typer.Argument(metavar="NAME")],
    description: Annotated[str, typer.Option(help="What it is, for people.")] = "",
    strict: Annotated[
        bool, typer.Option("--strict", help="Only declared connections pass within a cell.")
    ] = False,
    tenant: Tenant = "",
    as_json: Json = False,
) -> None:
    """Create a project: a repository to push to, and a cell in each environment."""
    where = place.tenant(tenant)
    document = {"slug": name, "description": description, "strict": strict}
    api = Api()
    answer = api.post(f"{where.tenant_path}/projects", document)
    if as_json:
        output.as_json(answer)
        return
    output.note(f"{name} is there. In its repository:")
    output.note(f"  git remote add cytoplane {api.settings.url}/git/{where.tenant}/{name}.git")
    output.note("  git push cytoplane main")


@projects.command("show")
def show(
    name: Annotated[
        str, typer.Argument(metavar="[NAME]", envvar="CYTO_PROJECT", help="Else the git remote's.")
    ] = "",
    tenant: Tenant = "",
    as_json: Json = False,
) -> None:
    """A project and what serves in its environments."""
    where, api = place.project(tenant, name), Api()
    found = api.get(where.project_path)
    if as_json:
        output.as_json(found)
        return
    cells = found.pop("environments", [])
    for cell in cells:
        cell["release"] = f"v{cell['release']}" if cell["release"] else "nothing yet"
    found["git"] = f"{api.url}{found['git']}"
    output.facts({"project" if key == "slug" else key: value for key, value in found.items()}, raw=False)
    print()
    columns = {"name": "ENVIRONMENT", "branch": "BRANCH", "release": "SERVES"}
    output.table(cells, columns, raw=False, empty="It has no environment.")


@projects.command("strict")
def strict(wanted: Annotated[str, typer.Argument(metavar="on|off")], tenant: Tenant = "", project: Project = "",
           as_json: Json = False) -> None:  # fmt: skip
    """Whether only declared connections pass within the project's cells."""
    if wanted not in ("on", "off"):
        raise usage(f"`{wanted}` is neither `on` nor `off`.", "Write `cyto projects strict on`.")
    where = place.project(tenant, project)
    answer = Api().call("PATCH", where.project_path, {"strict": wanted == "on"})
    output.done(answer, f"{where.project}: strict is {wanted}.", raw=as_json)


@projects.command("destroy")
def destroy(
    name: Annotated[str, typer.Argument(metavar="NAME")],
    confirm: Confirm = "",
    tenant: Tenant = "",
    as_json: Json = False,
) -> None:
    """End everything of a project, in all environments. It can't be taken back."""
    where = place.project(tenant, name)
    confirmed(name, confirm)
    answer = Api().call("DELETE", where.project_path, confirm=name)
    output.done(answer, f"{name} is destroyed.", raw=as_json)


@environments.command("list")
def list_environments(tenant: Tenant = "", as_json: Json = False) -> None:
    """Environments of a tenant, in the order of promotion."""
    rows = Api().get(f"{place.tenant(tenant).tenant_path}/environments")
    columns = {"name": "ENVIRONMENT", "branch": "BRANCH", "plane": "DATA PLANE", "offline": "IF OFFLINE"}
    output.table(rows, columns, raw=as_json, empty="It has no environment.")


@environments.command("offline")
def offline(
    name: Annotated[str, typer.Argument(metavar="ENVIRONMENT")],
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Deployments wait for the plane, or fail.")],
    tenant: Tenant = "",
    as_json: Json = False,
) -> None:
    """Say what deployments do whose data plane is offline."""
    path = f"{place.tenant(tenant).tenant_path}/environments/{part(name)}"
    answer = Api().call("PATCH", path, {"offline": "wait" if wait else "fail"})
    does = "wait until it is back" if wait else "fail"
    output.done(answer, f"Deployments to {name} {does} while its plane is offline.", raw=as_json)


def _open(limits: dict[str, int | None]) -> str:
    """Open connections of how many there may be."""
    now, most = limits["connections_open"], limits["connections"]
    return ("?" if now is None else str(now)) + (f" of {most}" if most else "")


@components.command("list")
def list_components(
    tenant: Tenant = "", project: Project = "", environment: Environment = "production", as_json: Json = False
) -> None:
    """Components with their endpoints and addresses."""
    rows = Api().get(f"{place.cell(tenant, project, environment).path}/components")
    for row in rows if not as_json else ():
        row["endpoints"] = [
            f"{name}:{endpoint['port']}/{endpoint['protocol']} {endpoint['visibility']}"
            for name, endpoint in row["endpoints"].items()
        ]
        row["open"] = _open(row["limits_in_force"])
    columns = {"name": "COMPONENT", "kind": "KIND", "replicas_wanted": "REPLICAS", "open": "CONNECTIONS",
               "endpoints": "ENDPOINTS", "urls": "ADDRESSES"}  # fmt: skip
    output.table(rows, columns, raw=as_json, empty="Nothing serves here yet.")


def register(app: typer.Typer) -> None:
    app.add_typer(projects, name="projects")
    app.add_typer(components, name="components")
    app.add_typer(environments, name="environments")
