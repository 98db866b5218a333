"""Tenants and their members."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from cli import output, place
from cli.api import USAGE, Api, CliError, part
from cli.output import Json
from cli.place import Tenant

topic = typer.Typer(help="Tenants: organisations with members and limits.", invoke_without_command=True)
members = typer.Typer(help="Members of a tenant and their roles.", invoke_without_command=True)
users = typer.Typer(help="Accounts (platform admins only).")
Confirm = Annotated[str, typer.Option("--confirm", metavar="NAME", help="Repeat the name.")]


def confirmed(name: str, confirm: str) -> None:
    """Raise unless what is about to be ended was named twice."""
    if confirm != name:
        raise CliError(
            f"This must be confirmed by the name {name}.", f"Repeat it with --confirm {name}.",
            "confirmation-missing", USAGE,
        )  # fmt: skip


def _tenants(as_json: bool) -> None:
    columns = {"slug": "TENANT", "name": "NAME", "state": "STATE", "plan": "PLAN", "role": "YOUR ROLE"}
    output.table(Api().get("/tenants"), columns, raw=as_json, empty="You belong to no tenant.")


@topic.callback()
def default(context: typer.Context, as_json: Json = False) -> None:
    if context.invoked_subcommand is None:
        _tenants(as_json)


@topic.command("list")
def list_tenants(as_json: Json = False) -> None:
    """Tenants that you see."""
    _tenants(as_json)


@topic.command("show")
def show(name: str, as_json: Json = False) -> None:
    """One tenant."""
    output.facts(Api().get(f"/tenants/{part(name)}"), raw=as_json)


@topic.command("create")
def create(
    name: str,
    owner: Annotated[str, typer.Option(help="Email of its first owner.")] = "",
    title: Annotated[str, typer.Option(help="Its name for people.")] = "",
    as_json: Json = False,
) -> None:
    """Create a tenant (platform admins only)."""
    answer = Api().post("/admin/tenants", {"slug": name, "owner": owner, "name": title})
    output.as_json(answer) if as_json else output.note(f"{name} is there.")


def _state(name: str, state: str, as_json: bool) -> None:
    answer = Api().call("PATCH", f"/admin/tenants/{part(name)}", {"state": state})
    output.as_json(answer) if as_json else output.note(f"{name} is {state} now.")


@topic.command("suspend")
def suspend(name: str, confirm: Confirm = "", as_json: Json = False) -> None:
    """Nothing can be pushed or changed any more; what runs goes on (platform admins only)."""
    confirmed(name, confirm)
    _state(name, "suspended", as_json)


@topic.command("resume")
def resume(name: str, as_json: Json = False) -> None:
    """Let a suspended tenant work again (platform admins only)."""
    _state(name, "active", as_json)


@topic.command("audit")
def audit(tenant: Tenant = "", limit: int = 50, as_json: Json = False) -> None:
    """What was done in the tenant, newest first."""
    rows = Api().get(f"{place.tenant(tenant).tenant_path}/audit", limit=limit)
    columns = {"at": "WHEN", "actor": "WHO", "verb": "WHAT", "object": "WHICH", "request_id": "REQUEST"}
    output.table(rows, columns, raw=as_json, empty="Nothing was done yet.")


def _members(tenant: str, as_json: bool) -> None:
    rows = Api().get(f"{place.tenant(tenant).tenant_path}/members")
    output.table(rows, {"email": "MEMBER", "role": "ROLE"}, raw=as_json, empty="Nobody.")


@members.callback()
def members_default(context: typer.Context, tenant: Tenant = "", as_json: Json = False) -> None:
    if context.invoked_subcommand is None:
        _members(tenant, as_json)


@members.command("list")
def list_members(tenant: Tenant = "", as_json: Json = False) -> None:
    """Members and their roles."""
    _members(tenant, as_json)


@members.command("add")
def add_member(
    email: str,
    role: Annotated[str, typer.Option(help="owner, admin, developer or viewer.")] = "developer",
    tenant: Tenant = "",
    as_json: Json = False,
) -> None:
    """Add a member, or change a member's role."""
    where = place.tenant(tenant)
    answer = Api().call("PUT", f"{where.tenant_path}/members/{part(email)}", {"role": role})
    output.as_json(answer) if as_json else output.note(f"{email} is {role} of {where.tenant} now.")


@members.command("remove")
def remove_member(email: str, tenant: Tenant = "", confirm: Confirm = "", as_json: Json = False) -> None:
    """End a membership."""
    confirmed(email, confirm)
    answer = Api().call("DELETE", f"{place.tenant(tenant).tenant_path}/members/{part(email)}")
    output.as_json(answer) if as_json else output.note(f"{email} isn't a member any more.")


@users.command("create")
def create_user(
    email: str,
    admin: Annotated[bool, typer.Option("--admin", help="Make it a platform admin.")] = False,
    password_stdin: Annotated[bool, typer.Option("--password-stdin")] = False,
    as_json: Json = False,
) -> None:
    """Create an account; its first password is asked for."""
    if password_stdin:
        password = sys.stdin.readline().rstrip("\n")
    else:
        password = typer.prompt("First password", hide_input=True, confirmation_prompt=True, err=True)
    answer = Api().post("/admin/users", {"email": email, "password": password, "admin": admin})
    output.as_json(answer) if as_json else output.note(f"{email} can sign in now.")


def register(app: typer.Typer) -> None:
    app.add_typer(topic, name="tenants")
    app.add_typer(members, name="members")
    app.add_typer(users, name="users")
