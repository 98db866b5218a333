"""Who gets what from every operation of the REST API: the written table that the walk compares with."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from functools import cache
from typing import Any

from django.contrib.auth.hashers import make_password
from django.utils import timezone

from dataplane.planes.models import DeniedNetwork, Node, Plane
from delivery import run_actions
from delivery.models import Deployment, Run
from execution import actions as execution
from tenants import tokens
from tenants.models import User
from tests import factories
from tests.factories import World

#: In this order the letters of a row stand for callers.
CALLERS = ("anonymous", "viewer", "developer", "admin", "owner", "stranger", "platform", "narrow")
#: letter → (status, id of the error)
ANSWERS = {
    ".": (200, ""),
    "U": (401, "not-signed-in"),
    "F": (403, "forbidden"),
    "N": (404, "not-found"),
    "S": (403, "token-scope"),
    "I": (422, "invalid"),
    "C": (409, "conflict"),
}
#: Rows that many operations share.
PUBLIC = "........"
ANYBODY = "U......."
READERS = "U....N.S"
WRITERS = "UF...NNS"
ADMINS = "UFF..NNS"
PLATFORM = "UNNNNN.N"


@dataclass(frozen=True)
class Operation:
    """A request and its answers. ``scope`` is what the caller ``narrow``, an owner, has no token for."""

    row: str
    scope: str = "manage"
    body: dict[str, Any] | None = None
    query: str = ""
    path: dict[str, str] = field(default_factory=dict)


READ = Operation(READERS, "read")
#: Beside the shop's components, one that ends by itself.
_TICK = """  tick: {schedule: "0 0 1 1 *", command: tick}
"""
#: operation id → what it needs and who may.
TABLE: dict[str, Operation] = {
    "sign_in": Operation(PUBLIC, body={"email": "{email}", "password": factories.PASSWORD}),
    "me": Operation(ANYBODY),
    "list_tokens": Operation(ANYBODY),
    "create_token": Operation("U......S", body={"name": "ci", "scopes": ["read"]}),
    "revoke_token": Operation("UNNN.NNS", path={"number": "{token}"}),
    "sign_out": Operation(ANYBODY),
    "list_tenants": Operation(ANYBODY),
    "get_tenant": READ,
    "list_members": READ,
    "set_member": Operation(ADMINS, body={"role": "developer"}),
    "remove_member": Operation(ADMINS),
    "audit": Operation("UFF..N.S", "read"),
    "create_tenant": Operation(PLATFORM, body={"slug": "initech"}),
    "set_tenant_state": Operation(PLATFORM, body={"state": "suspended"}),
    "create_user": Operation(
        PLATFORM, body={"email": "one.more@example.org", "password": factories.PASSWORD}
    ),
    "list_environments": READ,
    "change_environment": Operation(ADMINS, body={"offline": "wait"}),
    "list_projects": READ,
    "create_project": Operation(WRITERS, body={"slug": "billing"}),
    "get_project": READ,
    "change_project": Operation(WRITERS, "deploy", {"strict": True}),
    "destroy_project": Operation(ADMINS, query="confirm=shop"),
    "list_components": READ,
    "list_connections": READ,
    "get_config": READ,
    "change_config": Operation(WRITERS, "deploy", {"set": {"GREETING": "hello"}}),
    "list_releases": READ,
    "promote": Operation(WRITERS, "deploy", {"to": "staging"}, path={"number": "1"}),
    "rollback": Operation(WRITERS, "deploy", path={"number": "1"}),
    "list_replicas": READ,
    "get_scale": READ,
    "scale": Operation(WRITERS, "deploy", {"numbers": {"web": 2}}),
    "list_deployments": READ,
    "get_deployment": Operation(READERS, "read", path={"number": "{failed}"}),
    "cancel_deployment": Operation(WRITERS, "deploy", path={"environment": "staging", "number": "{waiting}"}),
    "retry_deployment": Operation(WRITERS, "deploy", path={"number": "{failed}"}),
    "deployment_log": Operation(READERS, "read", path={"number": "{failed}"}),
    "start_run": Operation(WRITERS, "deploy", {"component": "web", "command": ["id"]}),
    "list_runs": READ,
    "get_run": Operation(READERS, "read", path={"number": "{run}"}),
    "cancel_run": Operation(WRITERS, "deploy", path={"number": "{run}"}),
    "list_schedules": READ,
    "list_edges": READ,
    "list_logs": READ,
    "why": Operation(READERS, "read", query="source=web&destination=api"),
    "learn": READ,
    "open_session": Operation(WRITERS, "deploy", {"component": "web", "command": ["id"]}),
    "list_sessions": READ,
    "get_session": Operation(READERS, "read", path={"number": "{session}"}),
    # Only for the developer who opened it.
    "session_input": Operation(
        "UF.NNNNS", "deploy", {"number": 1, "data": "bHM="}, path={"number": "{session}"}
    ),
    "session_output": Operation("UF.NNNNS", "deploy", path={"number": "{session}"}),
    "end_session": Operation(WRITERS, "deploy", path={"number": "{session}"}),
    "list_planes": Operation(ANYBODY),
    # `mine` is acme's, `shared` nobody's.
    "create_plane": Operation("UFFF.N.S", body={"name": "own", "engine": "machine", "owner": "acme"}),
    "get_plane": Operation("U....N.S", "read", path={"name": "mine"}),
    "revoke_plane": Operation("UFFF.N.S", path={"name": "mine"}),
    "remove_plane": Operation("UFFF.N.S", path={"name": "mine"}, query="confirm=mine"),
    # `shared` is a machine: only platform admins get as far as being told so.
    "replace_kubeconfig": Operation("UNNNNNNN", body={"kubeconfig": "kind: Pod"}, path={"name": "shared"}),
    "list_places": Operation(PLATFORM, path={"name": "shared"}),
    "bind_environment": Operation("UFFF.N.S", body={"plane": "shared"}),
    "create_enrolment_token": Operation(PLATFORM, body={"kind": "builder"}, path={"name": "shared"}),
    "revoke_node": Operation(PLATFORM, path={"number": "{node}"}),
    "list_denied": Operation(PLATFORM),
    "deny_network": Operation(PLATFORM, body={"network": "203.0.113.0/24", "reason": "floods"}),
    "allow_network": Operation(PLATFORM, query="network=198.51.100.7"),
}


@cache
def document() -> dict[str, tuple[str, str]]:
    """operation id → (method, path) of the OpenAPI document."""
    from api.root import api

    found = {}
    for path, methods in api.get_openapi_schema()["paths"].items():
        for method, operation in methods.items():
            found[operation["operationId"]] = (method.upper(), path.removeprefix("/api/v1"))
    return found


class Stage:
    """A project with two releases, a failed deployment in production and one that waits in staging."""

    def __init__(self, world: World) -> None:
        self.world = world
        project = world.project("shop")
        self.cell = world.cell(project)
        self.releases = [world.deploy(self.cell), world.deploy(self.cell, factories.SHOP + _TICK)]
        # However long it takes: what is begun needs a plane that is there.
        Node.objects.update(last_seen_at=timezone.now() + timedelta(hours=1))
        failed = world.push(self.cell)
        Deployment.objects.filter(pk=failed.pk).update(state="failed")
        waiting = world.push(world.cell(project, "staging"))
        Plane.objects.create(name="mine", engine=Plane.Engine.MACHINE, owner=world.acme)
        DeniedNetwork.objects.create(network="198.51.100.7/32", reason="floods", created_by="somebody")
        session = execution.open_session(
            acting_user=world.actor("developer"), cell=self.cell, component="web", command=["id"]
        )
        # Hashing is slow by intention: once is enough for everybody.
        User.objects.update(password=make_password(factories.PASSWORD))
        self.values = {
            "tenant": "acme",
            "slug": "acme",
            "project": "shop",
            "environment": "production",
            "email": world.person("viewer").email,
            "failed": str(failed.pk),
            "waiting": str(waiting.pk),
            "session": str(session.pk),
            "run": str(self._run().pk),
            "node": str(world.agent().node.pk),
            "token": str(tokens.issue(world.person("owner"), name="t", scopes=["read"], days=1)[0].pk),
        }

    def _run(self) -> Run:
        return run_actions.start(
            acting_user=self.world.actor("developer"), cell=self.cell, component="web", words=["id"]
        )

    def client(self, caller: str, scope: str) -> factories.Api:
        world = self.world
        if caller == "anonymous":
            return factories.Api()
        if caller == "platform":
            return factories.Api(factories.bearer(world.admin))
        if caller == "stranger":
            return world.api("owner", "globex")
        if caller == "narrow":
            kept = tuple(name for name in ("read", "deploy", "manage") if name != scope)
            return factories.Api(factories.bearer(world.person("owner"), kept))
        return world.api(caller)

    def email(self, caller: str) -> str:
        if caller == "platform":
            return self.world.admin.email
        tenant = "globex" if caller == "stranger" else "acme"
        role = caller if caller in ("viewer", "developer", "admin") else "owner"
        return self.world.person(role, tenant).email

    def request(self, name: str, caller: str, **values: str) -> tuple[str, str, dict[str, Any] | None]:
        """Method, path and body of an operation; ``values`` replace the stage's own."""
        operation, (method, path) = TABLE[name], document()[name]
        known = {**self.values, **{k: v.format(**self.values) for k, v in operation.path.items()}, **values}
        filled = path.format(**known) + (f"?{operation.query}" if operation.query else "")
        body = operation.body
        if body and "password" in body and name == "sign_in":
            body = {**body, "email": self.email(caller)}
        return method, filled, body
