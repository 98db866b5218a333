"""Who gets what from every address of the portal: the written table that the walk compares with."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

from django.http import HttpResponse
from django.test import Client

from tests import factories
from tests.factories import World
from tests.platform.api.operations import Stage

#: In this order the letters of a row stand for callers.
CALLERS = ("anonymous", "viewer", "developer", "admin", "owner", "stranger", "platform")
#: `.` a page; D done, and led on; S sent to the door; U not signed in; F refused; N as if it weren't there.
READERS = "S....N."
WRITERS = "SFDDDNN"
ADMINS = "SFFDDNN"
PLATFORM = "SNNNNN."
STREAM = "U....N."
_CELL = "<slug:tenant>/<slug:project>/<slug:environment>"


@dataclass(frozen=True)
class Route:
    """A request to an address. ``path`` replaces the stage's own values, ``body`` makes it a POST."""

    row: str
    body: dict[str, object] | None = None
    path: dict[str, str] = field(default_factory=dict)


READ = Route(READERS)
_FAILED = {"number": "{failed}"}
_STAGED = json.dumps(
    [{"component": "", "name": "GREETING", "kind": "set", "value": "hello", "secret": False}]
)
#: (method, address as it is written in web.urls) → who may.
TABLE: dict[tuple[str, str], Route] = {
    ("GET", ""): Route("SDDDDDD"),
    ("GET", "sign-in"): Route(".DDDDDD"),
    ("POST", "sign-out"): Route("SSSSSSS", {}),
    ("GET", "-/palette"): Route("S......"),
    ("GET", "-/tokens"): Route("S......"),
    ("POST", "-/tokens"): Route("S......", {"name": "ci", "scopes": ["read"], "days": "1"}),
    ("POST", "-/tokens/<int:number>/revoke"): Route("SNNNDNN", {}, {"number": "{token}"}),
    ("GET", "admin"): Route(PLATFORM),
    ("POST", "admin"): Route("SNNNNND", {"slug": "initech"}),
    ("GET", "admin/tenants/<slug:tenant>"): Route(PLATFORM),
    ("POST", "admin/tenants/<slug:tenant>/state"): Route(
        "SNNNNND", {"state": "suspended", "confirm": "acme"}
    ),
    ("POST", "admin/users"): Route(
        "SNNNNND", {"email": "one.more@example.org", "password": factories.PASSWORD}
    ),
    ("GET", "admin/planes"): Route(PLATFORM),
    ("GET", "admin/edge"): Route(PLATFORM),
    ("POST", "admin/edge"): Route("SNNNNND", {"network": "203.0.113.0/24", "reason": "floods"}),
    ("POST", "admin/edge/allow"): Route("SNNNNND", {"network": "198.51.100.7"}),
    ("GET", "admin/audit"): Route(PLATFORM),
    ("GET", "<slug:tenant>"): READ,
    ("GET", "<slug:tenant>/-/new"): READ,
    ("POST", "<slug:tenant>/-/new"): Route(WRITERS, {"slug": "billing"}),
    ("GET", "<slug:tenant>/-/why"): READ,
    ("GET", "<slug:tenant>/-/members"): READ,
    ("POST", "<slug:tenant>/-/members"): Route(
        ADMINS, {"email": "developer@acme.example.org", "role": "viewer"}
    ),
    ("POST", "<slug:tenant>/-/members/remove"): Route(ADMINS, {"email": "developer@acme.example.org"}),
    ("GET", "<slug:tenant>/-/planes"): READ,
    # A plane is made, and the command is shown, by the answer itself.
    ("POST", "<slug:tenant>/-/planes"): Route("SFFF.N.", {"name": "own", "engine": "machine"}),
    ("POST", "<slug:tenant>/-/planes/token"): Route("SFFF.N.", {"plane": "mine"}),
    ("POST", "<slug:tenant>/-/planes/revoke"): Route("SFFFDND", {"plane": "mine", "confirm": "mine"}),
    ("POST", "<slug:tenant>/-/planes/environment"): Route(
        "SFFFDND", {"environment": "staging", "plane": "shared"}
    ),
    ("GET", "<slug:tenant>/-/usage"): READ,
    ("GET", "<slug:tenant>/-/audit"): Route("SFF..N."),
    ("GET", "<slug:tenant>/<slug:project>"): Route("SDDDDND"),
    ("GET", _CELL): READ,
    ("GET", f"{_CELL}/events"): Route(STREAM),
    ("GET", f"{_CELL}/components/<slug:component>"): READ,
    ("POST", f"{_CELL}/components/<slug:component>/scale"): Route(WRITERS, {"replicas": "2"}),
    ("GET", f"{_CELL}/deployments"): READ,
    ("GET", f"{_CELL}/deployments/<int:number>"): Route(READERS, None, _FAILED),
    ("GET", f"{_CELL}/deployments/<int:number>/events"): Route(STREAM, None, _FAILED),
    ("GET", f"{_CELL}/deployments/<int:number>/log.txt"): Route(READERS, None, _FAILED),
    ("POST", f"{_CELL}/deployments/<int:number>/cancel"): Route(
        WRITERS, {}, {"environment": "staging", "number": "{waiting}"}
    ),
    ("POST", f"{_CELL}/deployments/<int:number>/retry"): Route(WRITERS, {}, _FAILED),
    ("GET", f"{_CELL}/runs"): READ,
    ("GET", f"{_CELL}/runs/<int:number>"): Route(READERS, None, {"number": "{run}"}),
    ("POST", f"{_CELL}/runs/start"): Route(WRITERS, {"component": "tick"}),
    ("POST", f"{_CELL}/runs/<int:number>/cancel"): Route(WRITERS, {}, {"number": "{run}"}),
    ("GET", f"{_CELL}/releases"): READ,
    ("POST", f"{_CELL}/releases/<int:number>/rollback"): Route(WRITERS, {}, {"number": "1"}),
    ("POST", f"{_CELL}/releases/<int:number>/promote"): Route(WRITERS, {"to": "staging"}, {"number": "1"}),
    ("GET", f"{_CELL}/configuration"): READ,
    ("POST", f"{_CELL}/configuration"): Route(WRITERS, {"changes": _STAGED}),
    ("GET", f"{_CELL}/logs"): READ,
    ("GET", f"{_CELL}/logs/events"): Route(STREAM),
    ("GET", f"{_CELL}/learning"): READ,
    ("GET", f"{_CELL}/settings"): READ,
    ("POST", f"{_CELL}/settings/strict"): Route(WRITERS, {"strict": "on"}),
    ("POST", f"{_CELL}/settings/audit"): Route(WRITERS, {"audit": "on"}),
    ("POST", f"{_CELL}/settings/destroy"): Route(ADMINS, {"confirm": "shop"}),
}


def browser(world: World, caller: str) -> Client:
    """A client that is signed in as a caller of the table."""
    client = factories.client()
    if caller == "anonymous":
        return client
    tenant, role = ("globex", "owner") if caller == "stranger" else ("acme", caller)
    person = world.admin if caller == "platform" else world.person(role, tenant)
    person.refresh_from_db()  # a session ends with the password that it began with
    client.force_login(person)
    return client


def address(stage: Stage, key: tuple[str, str], **values: str) -> str:
    """An address with the stage's values; ``values`` replace them."""
    known = {**stage.values, "component": "web"}
    known |= {name: value.format(**stage.values) for name, value in TABLE[key].path.items()}
    path = key[1].replace("<slug:", "{").replace("<int:", "{").replace(">", "}")
    return f"/{path.format(**{**known, **values})}"


def ask(client: Client, stage: Stage, key: tuple[str, str], **values: str) -> HttpResponse:
    """The answer to a request of the table."""
    path, body = address(stage, key, **values), TABLE[key].body
    headers = {"Accept": "text/html"}
    if key[0] == "POST":
        return client.post(path, body or {}, headers=headers)  # type: ignore[return-value]
    return client.get(path, headers=headers)  # type: ignore[return-value]


def letter(response: HttpResponse) -> str:
    """An answer as the table writes it."""
    if response.status_code == 302:
        if response["Location"].startswith("/sign-in"):
            return "S"
        told = [str(message) for message in response.wsgi_request._messages]  # type: ignore[attr-defined]
        return (
            "F"
            if any("(forbidden, request " in text for text in told)
            else "D"
            if not _bad(told)
            else str(told)
        )
    return {200: ".", 401: "U", 403: "F", 404: "N"}.get(response.status_code, str(response.status_code))


def _bad(told: list[str]) -> bool:
    return any(", request " in text for text in told)
