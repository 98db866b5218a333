"""Tenants and their members."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from cli import output, place
from cli.api import Api, part
from cli.errors import USAGE, CliError
from cli.output import Json
from cli.place import Tenant
from cli.topics import topic

tenants = topic("Tenants: organisations with members and limits.")
members = topic("Members of a tenant and their roles.")
users = topic("Accounts (platform admins only).")
Confirm = Annotated[
    str, typer.Option("--confirm", metavar="NAME", help="The name once more; asked for on a terminal.")
]
Limit = Annotated[int, typer.Option(min=1, max=200, help="How many at most.")]
Before = Annotated[int, typer.Option(min=0, metavar="ID", help="Those before this one: the next page.")]
TenantName = Annotated[str, typer.Argument(metavar="TENANT")]
Email = Annotated[str, typer.Argument(metavar="EMAIL")]


def confirmed(name: str, confirm: str) -> None:
    """Raise unless what is about to be ended was named twice."""
    if not confirm and sys.stdin.isatty():
        confirm = output.ask(f"Type {name} to confirm", f"Repeat it with --confirm {name}.")
    if confirm != name:
        raise CliError(
            f"This must be confirmed by the name {name}.", f"Repeat it with --confirm {name}.",
            "confirmation-missing", USAGE,
        )  # fmt: skip


@tenants.command("list")
def list_tenants(as_json: Json = False) -> None:
    """Tenants that you see."""
    columns = {"slug": "TENANT", "name": "NAME", "state": "STATE", "plan": "PLAN", "role": "YOUR ROLE"}
    output.table(Api().get("/tenants"), columns, raw=as_json, empty="You belong to no tenant.")


@tenants.command("show")
def show(name: TenantName, as_json: Json = False) -> None:
    """One tenant, and how much of its plan it uses."""
    found = Api().get(f"/tenants/{part(name)}")
    if as_json:
        output.as_json(found)
        return
    usage = found.pop("usage", {})
    output.facts({"tenant" if key == "slug" else key: value for key, value in found.items()}, raw=False)
    print()
    rows = [
        {"what": key.replace("_", " "), "used": used, "limit": most} for key, (used, most) in usage.items()
    ]
    output.table(
        rows, {"what": "WHAT", "used": "USED", "limit": "LIMIT"}, raw=False, empty="Nothing is used."
    )


@tenants.command("create")
def create(
    name: TenantName,
    owner: Annotated[str, typer.Option(help="Email of its first owner.")] = "",
    title: Annotated[str, typer.Option(help="Its name for people.")] = "",
    as_json: Json = False,
) -> None:
    """Create a tenant (platform admins only)."""
    answer = Api().post("/admin/tenants", {"slug": name, "owner": owner, "name": title})
    output.done(answer, f"{name} is there.", raw=as_json)


def _state(name: str, state: str, as_json: bool) -> None:
    answer = Api().call("PATCH", f"/admin/tenants/{part(name)}", {"state": state})
    output.done(answer, f"{name} is {state} now.", raw=as_json)


@tenants.command("suspend")
def suspend(name: TenantName, confirm: Confirm = "", as_json: Json = False) -> None:
    """Nothing can be pushed or changed any more; what runs goes on (platform admins only)."""
    confirmed(name, confirm)
    _state(name, "suspended", as_json)


@tenants.command("resume")
def resume(name: TenantName, as_json: Json = False) -> None:
    """Let a suspended tenant work again (platform admins only)."""
    _state(name, "active", as_json)


@tenants.command("audit")
def audit(tenant: Tenant = "", limit: Limit = 50, before: Before = 0, as_json: Json = False) -> None:
    """What was done in the tenant, newest first."""
    rows = Api().get(f"{place.tenant(tenant).tenant_path}/audit", limit=limit, before=before or None)
    for row in rows if not as_json else ():
        row |= {
            "at": output.ago(row["at"]),
            "actor": output.person(row["actor"]),
            "object": row["object"]["name"],
        }
    columns = {"id": "ID", "at": "WHEN", "actor": "WHO", "verb": "WHAT", "object": "WHICH"}
    output.table(rows, columns, raw=as_json, empty="Nothing was done yet.")


@members.command("list")
def list_members(tenant: Tenant = "", as_json: Json = False) -> None:
    """Members and their roles."""
    rows = Api().get(f"{place.tenant(tenant).tenant_path}/members")
    output.table(rows, {"email": "MEMBER", "role": "ROLE"}, raw=as_json, empty="Nobody.")


@members.command("add")
def add_member(
    email: Email,
    role: Annotated[str, typer.Option(help="owner, admin, developer or viewer.")] = "developer",
    tenant: Tenant = "",
    as_json: Json = False,
) -> None:
    """Add a member, or change a member's role."""
    where = place.tenant(tenant)
    answer = Api().call("PUT", f"{where.tenant_path}/members/{part(email)}", {"role": role})
    output.done(answer, f"{email} is {role} of {where.tenant} now.", raw=as_json)


@members.command("remove")
def remove_member(email: Email, tenant: Tenant = "", confirm: Confirm = "", as_json: Json = False) -> None:
    """End a membership."""
    confirmed(email, confirm)
    answer = Api().call("DELETE", f"{place.tenant(tenant).tenant_path}/members/{part(email)}")
    output.done(answer, f"{email} isn't a member any more.", raw=as_json)


@users.command("create")
def create_user(
    email: Email,
    admin: Annotated[bool, typer.Option("--admin", help="Make it a platform admin.")] = False,
    password_stdin: Annotated[
        bool, typer.Option("--password-stdin", help="Read the password from standard input.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Create an account; its first password is asked for."""
    if password_stdin:
        password = sys.stdin.readline().rstrip("\r\n")
    else:
        instead = "Give --password-stdin and write it to standard input."
        password = output.ask("First password", instead, hide=True, twice=True)
    answer = Api().post("/admin/users", {"email": email, "password": password, "admin": admin})
    output.done(answer, f"{email} can sign in now.", raw=as_json)


def register(app: typer.Typer) -> None:
    app.add_typer(tenants, name="tenants")
    app.add_typer(members, name="members")
    app.add_typer(users, name="users")
