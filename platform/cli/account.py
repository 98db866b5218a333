"""Signing in and out, and tokens."""

from __future__ import annotations

import sys
from typing import Annotated
from urllib.parse import urlsplit

import typer

from cli import gits, output
from cli.api import Api, part
from cli.errors import CliError, usage
from cli.output import Json
from cli.settings import Settings, load
from cli.topics import topic

tokens = topic("Tokens: permission for a program to act as you.")


def _warn_of_plain_text(url: str) -> None:
    parts = urlsplit(url)
    if parts.scheme == "http" and parts.hostname not in ("localhost", "127.0.0.1", "::1"):
        output.note(f"Careful: what you send to {url} can be read on its way. Use https if it has it.")


def _end(settings: Settings, secret: str) -> CliError | None:
    """Revoke a token that was remembered; what kept it from that, if anything did."""
    try:
        Api(settings, bearer=secret).call("DELETE", "/me/token")
    except CliError as error:
        return error
    return None


def login(
    url: Annotated[str, typer.Option(help="Address of the platform; it is remembered.")] = "",
    email: Annotated[str, typer.Option(help="Your email; asked for if missing.")] = "",
    password_stdin: Annotated[
        bool, typer.Option("--password-stdin", help="Read the password from standard input.")
    ] = False,
    days: Annotated[int, typer.Option(min=1, max=365, help="How long the sign-in lasts.")] = 90,
    with_git: Annotated[
        bool, typer.Option("--git/--no-git", help="Let git use the sign-in for this platform.")
    ] = True,
    as_json: Json = False,
) -> None:
    """Sign in. A token is remembered, readable by you alone, and `git push` uses it from then on."""
    settings = load(url)
    _warn_of_plain_text(settings.url)
    email = email or output.ask("Email", "Give --email.")
    if password_stdin:
        password = sys.stdin.readline().rstrip("\r\n")
    else:
        password = output.ask("Password", "Give --password-stdin and write it to standard input.", hide=True)
    if not (email and password):
        raise usage("Email or password is empty.", "Write both.")
    document = {"email": email, "password": password, "name": "cyto", "days": days}
    answer = Api(settings, bearer="").post("/tokens", document)
    before = settings.tokens.get(settings.url, "")
    settings.tokens[settings.url] = answer.pop("token")
    settings.save()
    if before:
        _end(settings, before)
    helped = with_git and gits.teach(settings.url)
    note = " git uses it too." if helped else ""
    output.done(
        {"url": settings.url, "email": email, "git": helped, **answer},
        f"Signed in to {settings.url} as {email}.{note}",
        raw=as_json,
    )


def logout(as_json: Json = False) -> None:
    """Revoke this machine's token and forget it. A token in CYTO_TOKEN isn't touched."""
    settings = load()
    secret = settings.tokens.pop(settings.url, "")
    failure = _end(settings, secret) if secret else None
    gits.forget(settings.url)
    settings.save()
    if failure and failure.code != "token-invalid":
        output.note(f"The token couldn't be revoked: {failure.message} `cyto tokens revoke` ends it later.")
    output.done(
        {"url": settings.url, "revoked": bool(secret) and failure is None},
        f"Signed out of {settings.url}." if secret else f"You weren't signed in to {settings.url}.",
        raw=as_json,
    )


def whoami(as_json: Json = False) -> None:
    """Who you are, and your role in each tenant."""
    api = Api()
    me = api.get("/me")
    if as_json:
        output.as_json(me)
        return
    shown = {
        "email": me["email"],
        "name": me["name"],
        "platform admin": me["platform_admin"],
        "platform": api.url,
    }
    output.facts({key: value for key, value in shown.items() if value not in ("", None)}, raw=False)
    print()
    columns = {"slug": "TENANT", "role": "YOUR ROLE", "state": "STATE"}
    output.table(me["tenants"], columns, raw=False, empty="You belong to no tenant.")


@tokens.command("list")
def list_tokens(as_json: Json = False) -> None:
    """Your tokens; never their secret part."""
    rows = Api().get("/me/tokens")
    for row in rows if not as_json else ():
        row |= {"expires_at": row["expires_at"][:10], "last_used_at": output.ago(row["last_used_at"])}
    columns = {"id": "ID", "name": "NAME", "prefix": "BEGINS WITH", "scopes": "MAY", "tenant": "ONLY FOR",
               "expires_at": "ENDS", "last_used_at": "USED"}  # fmt: skip
    output.table(rows, columns, raw=as_json, empty="You have no tokens.")


@tokens.command("create")
def create_token(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What it is for.")],
    scope: Annotated[
        list[str] | None, typer.Option(help="read, deploy or manage; may be repeated. [default: read]")
    ] = None,
    days: Annotated[int, typer.Option(min=1, max=365, help="How long it is good.")] = 90,
    only_tenant: Annotated[str, typer.Option("--only-tenant", help="It is good for this tenant alone.")] = "",
    as_json: Json = False,
) -> None:
    """Make a token; it is printed once and can't be shown again."""
    document = {"name": name, "scopes": scope or ["read"], "days": days, "tenant": only_tenant}
    answer = Api().post("/me/tokens", document)
    if as_json:
        output.as_json(answer)
        return
    output.note("Keep it: it can't be shown again.")
    print(answer["token"])


@tokens.command("revoke")
def revoke_token(
    number: Annotated[int, typer.Argument(metavar="ID", help="As `cyto tokens` shows it.")],
    as_json: Json = False,
) -> None:
    """End a token at once."""
    answer = Api().call("DELETE", f"/me/tokens/{part(str(number))}")
    output.done(answer, f"Token {number} is revoked.", raw=as_json)


def register(app: typer.Typer) -> None:
    app.command()(login)
    app.command()(logout)
    app.command()(whoami)
    app.add_typer(tokens, name="tokens")
