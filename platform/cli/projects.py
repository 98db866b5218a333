"""Projects, their environments and components."""

from __future__ import annotations

from typing import Annotated

import typer

from cli import output, place
from cli.api import Api
from cli.output import Json
from cli.place import Environment, Project, Tenant
from cli.tenants import Confirm, confirmed

topic = typer.Typer(help="Projects: what a tenant builds together.", invoke_without_command=True)
components = typer.Typer(help="Components of what serves.", invoke_without_command=True)


def _projects(tenant: str, as_json: bool) -> None:
    where = place.tenant(tenant)
    rows = Api().get(f"{where.tenant_path}/projects")
    columns = {"slug": "PROJECT", "description": "WHAT IT IS", "strict": "STRICT"}
    empty = f"{where.tenant} has no project yet: `cyto projects create NAME` makes one."
    output.table(rows, columns, raw=as_json, empty=empty)


@topic.callback()
def default(context: typer.Context, tenant: Tenant = "", as_json: Json = False) -> None:
    if context.invoked_subcommand is None:
        _projects(tenant, as_json)


@topic.command("list")
def list_projects(tenant: Tenant = "", as_json: Json = False) -> None:
    """Projects of a tenant."""
    _projects(tenant, as_json)


@topic.command("create")
def create(
    name: str,
    description: str = "",
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


@topic.command("show")
def show(name: Annotated[str, typer.Argument()] = "", tenant: Tenant = "", as_json: Json = False) -> None:
    """A project and its cells."""
    where = place.project(tenant, name)
    found = Api().get(where.project_path)
    if as_json:
        output.as_json(found)
        return
    cells = found.pop("cells", [])
    output.facts({k: v for k, v in found.items() if not isinstance(v, list | dict)}, raw=False)
    for cell in cells:
        output.facts(
            {k: v for k, v in cell.items() if not isinstance(v, list | dict)}, raw=False, title="\ncell"
        )


@topic.command("strict")
def strict(wanted: Annotated[str, typer.Argument(metavar="on|off")], tenant: Tenant = "", project: Project = "",
           as_json: Json = False) -> None:  # fmt: skip
    """Whether only declared connections pass within the project's cells."""
    if wanted not in ("on", "off"):
        raise typer.BadParameter("say `on` or `off`")
    where = place.project(tenant, project)
    answer = Api().call("PATCH", where.project_path, {"strict": wanted == "on"})
    output.as_json(answer) if as_json else output.note(f"{where.project}: strict is {wanted}.")


@topic.command("destroy")
def destroy(name: str, confirm: Confirm = "", tenant: Tenant = "", as_json: Json = False) -> None:
    """End everything of a project, in all environments. It can't be taken back."""
    where = place.project(tenant, name)
    confirmed(name, confirm)
    answer = Api().call("DELETE", where.project_path, confirm=confirm)
    output.as_json(answer) if as_json else output.note(f"{name} is destroyed.")


def environments(tenant: Tenant = "", as_json: Json = False) -> None:
    """Environments of a tenant, in the order of promotion."""
    rows = Api().get(f"{place.tenant(tenant).tenant_path}/environments")
    output.table(
        rows, {"name": "ENVIRONMENT", "branch": "BRANCH", "plane": "DATA PLANE"}, raw=as_json, empty="None."
    )


def _components(tenant: str, project: str, environment: str, as_json: bool) -> None:
    rows = Api().get(f"{place.cell(tenant, project, environment).path}/components")
    if as_json:
        output.as_json(rows)
        return
    for row in rows:
        endpoints = row.get("endpoints") or []
        items = endpoints.items() if isinstance(endpoints, dict) else ((e.get("name"), e) for e in endpoints)
        row["endpoints"] = [
            f"{name}:{e.get('port')}/{e.get('protocol')} {e.get('visibility')}" for name, e in items
        ]
    columns = {
        "name": "COMPONENT",
        "kind": "KIND",
        "replicas": "REPLICAS",
        "endpoints": "ENDPOINTS",
        "hosts": "HOSTS",
    }
    output.table(rows, columns, raw=False, empty="Nothing serves here yet.")


@components.callback()
def components_default(
    context: typer.Context, tenant: Tenant = "", project: Project = "", environment: Environment = "production",
    as_json: Json = False,
) -> None:  # fmt: skip
    if context.invoked_subcommand is None:
        _components(tenant, project, environment, as_json)


@components.command("list")
def list_components(
    tenant: Tenant = "", project: Project = "", environment: Environment = "production", as_json: Json = False
) -> None:
    """Components with their endpoints."""
    _components(tenant, project, environment, as_json)


def register(app: typer.Typer) -> None:
    app.add_typer(topic, name="projects")
    app.add_typer(components, name="components")
    app.command()(environments)
