"""Signing in and out, and tokens."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from cli import output
from cli.api import Api, CliError, part
from cli.output import Json
from cli.settings import load

tokens = typer.Typer(help="Tokens: permission for a program to act as you.", invoke_without_command=True)


def login(
    url: Annotated[str, typer.Option(help="Address of the platform.")] = "",
    email: Annotated[str, typer.Option(help="Your email; asked for if missing.")] = "",
    password_stdin: Annotated[
        bool, typer.Option("--password-stdin", help="Read the password from standard input.")
    ] = False,
    days: Annotated[int, typer.Option(min=1, max=365, help="How long the sign-in lasts.")] = 90,
) -> None:
    """Sign in and remember a token, readable by you alone."""
    settings = load(url)
    email = email or typer.prompt("Email", err=True)
    if password_stdin:
        password = sys.stdin.readline().rstrip("\n")
    else:
        password = typer.prompt("Password", hide_input=True, err=True)
    document = {"email": email, "password": password, "name": "cyto", "days": days}
    settings.tokens.pop(settings.url, None)
    answer = Api(settings).post("/tokens", document)
    settings.tokens[settings.url] = answer["token"]
    settings.save()
    output.note(f"Signed in to {settings.url} as {email}.")


def logout() -> None:
    """Revoke this machine's token and forget it."""
    settings = load()
    if settings.token:
        try:
            Api(settings).call("DELETE", "/me/token")
        except CliError as error:
            output.note(f"The token couldn't be revoked: {error.message}")
    settings.tokens.pop(settings.url, None)
    settings.save()
    output.note(f"Signed out of {settings.url}.")


def whoami(as_json: Json = False) -> None:
    """Who you are, and your role in each tenant."""
    me = Api().get("/me")
    if as_json:
        output.as_json(me)
        return
    output.facts({k: v for k, v in me.items() if not isinstance(v, list | dict)}, raw=False)


@tokens.callback()
def tokens_list(context: typer.Context, as_json: Json = False) -> None:
    if context.invoked_subcommand is None:
        _list(as_json)


@tokens.command("list")
def list_tokens(as_json: Json = False) -> None:
    """Your tokens; never their secret part."""
    _list(as_json)


def _list(as_json: bool) -> None:
    columns = {"id": "ID", "name": "NAME", "prefix": "BEGINS WITH", "scopes": "MAY", "tenant": "ONLY FOR",
               "expires_at": "ENDS", "revoked_at": "REVOKED"}  # fmt: skip
    output.table(Api().get("/me/tokens"), columns, raw=as_json, empty="You have no tokens.")


@tokens.command("create")
def create_token(
    name: str,
    scope: Annotated[list[str], typer.Option(help="read, deploy, manage; may be repeated.")] = ["read"],  # noqa: B006
    days: Annotated[int, typer.Option(min=1, max=365)] = 90,
    only_tenant: Annotated[str, typer.Option("--only-tenant", help="It is good for this tenant alone.")] = "",
    as_json: Json = False,
) -> None:
    """Make a token; it is printed once and can't be shown again."""
    document = {"name": name, "scopes": scope, "days": days, "tenant": only_tenant}
    answer = Api().post("/me/tokens", document)
    if as_json:
        output.as_json(answer)
        return
    output.note("Keep it: it can't be shown again.")
    print(answer["token"])


@tokens.command("revoke")
def revoke_token(number: Annotated[int, typer.Argument(metavar="ID")], as_json: Json = False) -> None:
    """End a token at once."""
    answer = Api().call("DELETE", f"/me/tokens/{part(str(number))}")
    output.as_json(answer) if as_json else output.note(f"Token {number} is revoked.")


def register(app: typer.Typer) -> None:
    app.command()(login)
    app.command()(logout)
    app.command()(whoami)
    app.add_typer(tokens, name="tokens")
