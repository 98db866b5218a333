"""Rows that tests begin with, made by the same actions that people's requests use."""

from __future__ import annotations

import itertools
from datetime import timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from django.test import Client
from django.utils import timezone

from cells.specification import Specification, parse
from dataplane.planes import enrolment, snapshots
from dataplane.planes.models import Certificate, Node, Plane
from delivery import actions as delivery
from delivery import machine
from delivery.models import Build, Deployment, Release, Replica
from projects import actions as projects
from projects.models import Cell, Project
from tenants import actions as tenants
from tenants import tokens
from tenants.models import Membership, Plan, Role, Tenant, User
from tenants.policy import Actor, actor_for

PASSWORD = "a long enough secret"
ARCHIVE = "0" * 32 + ".tar"
_counter = itertools.count(1)
_handler = Client()

SHOP = """
components:
  web:
    kind: web
    command: serve
    connections: [{to: api}]
  api:
    kind: service
    command: serve
    endpoints: {http: {port: 8080, visibility: tenant}}
"""


def specification(text: str = SHOP, project: str = "shop") -> Specification:
    """What the parser makes of a cytoplane.yaml."""
    return parse({"cytoplane.yaml": text}, project=project, detected={".": "dockerfile"})


def actor(user: User, **token: Any) -> Actor:
    """The user as an actor; with ``scopes``, ``tenant`` or ``days`` by a token of that kind."""
    if not token:
        return actor_for(user)
    return actor_for(user, tokens.issue(user, name="test", days=token.pop("days", 1), **token)[0])


def user(email: str = "", *, admin: bool = False, password: str | None = None) -> User:
    """An account; without a password (hashing is slow by intention) unless one is given."""
    email = email or f"person{next(_counter)}@example.org"
    return User.objects.create_user(email, password, is_platform_admin=admin)


def bearer(person: User, scopes: tuple[str, ...] = ("read", "deploy", "manage"), **more: Any) -> str:
    """The secret of a new token."""
    return tokens.issue(person, name="test", scopes=list(scopes), days=1, **more)[1]


def client(**more: Any) -> Client:
    """A client whose errors are answers; all share one chain of middleware, which is slow to build."""
    made = Client(raise_request_exception=False, **more)
    if not more:
        made.handler = _handler.handler
    return made


class Api:
    """A client of the REST API with somebody's token (none: anonymous)."""

    def __init__(self, secret: str = "") -> None:
        self._client = client()
        self._headers = {"Authorization": f"Bearer {secret}"} if secret else {}

    def __call__(self, method: str, path: str, body: Any = None, **headers: str):  # type: ignore[no-untyped-def]
        """The response. ``path`` begins behind ``/api/v1``."""
        more: dict[str, Any] = {}
        if body is not None:
            more = {"data": body, "content_type": "application/json"}
        call = getattr(self._client, method.lower())
        return call(f"/api/v1{path}", headers={**self._headers, **headers}, **more)

    def get(self, path: str, **headers: str):  # type: ignore[no-untyped-def]
        return self("GET", path, **headers)

    def post(self, path: str, body: Any = None):  # type: ignore[no-untyped-def]
        return self("POST", path, {} if body is None else body)


class World:
    """Tenants ``acme`` and ``globex`` with somebody in each role, and a platform admin."""

    def __init__(self) -> None:
        self.plan, _ = Plan.objects.get_or_create(name="standard")
        self.plane = Plane.objects.create(name="shared", engine=Plane.Engine.MACHINE)
        self.admin = user("admin@example.org", admin=True)
        self.root = actor_for(self.admin)
        self.members: dict[str, User] = {}
        self.acme = self.tenant("acme")
        self.globex = self.tenant("globex")

    def tenant(self, slug: str) -> Tenant:
        """A tenant and its four people, ``<role>@<slug>.example.org``."""
        made = tenants.create_tenant(acting_user=self.root, slug=slug)
        for role in Role.values:
            person = user(f"{role}@{slug}.example.org")
            Membership.objects.create(tenant=made, user=person, role=role)
            self.members[f"{slug} {role}"] = person
        return made

    def person(self, role: str = "owner", tenant: str = "acme") -> User:
        return self.members[f"{tenant} {role}"]

    def actor(self, role: str = "owner", tenant: str = "acme", **token: Any) -> Actor:
        return actor(self.person(role, tenant), **token)

    def api(self, role: str = "owner", tenant: str = "acme", **token: Any) -> Api:
        return Api(bearer(self.person(role, tenant), **token))

    def project(self, slug: str = "shop", tenant: str = "acme", **more: Any) -> Project:
        row = self.acme if tenant == "acme" else self.globex
        return projects.create_project(acting_user=self.actor("owner", tenant), tenant=row, slug=slug, **more)

    def cell(
        self, project: Project | None = None, environment: str = "production", tenant: str = "acme"
    ) -> Cell:
        """A project's cell as the actions get it."""
        project = project or self.project(tenant=tenant)
        return Cell.objects.select_related("project__tenant", "environment__plane", "serving_release").get(
            project=project, environment__name=environment
        )

    def push(self, cell: Cell, commit: str = "", summary: str = "A change") -> Deployment:
        """A pushed commit, waiting."""
        return delivery.start_push(
            acting_user=actor(self.person("developer", cell.project.tenant.slug)),
            cell=cell,
            branch=cell.environment.branch,
            old="0" * 40,
            new=commit or f"{next(_counter):040x}",
            summary=summary,
            archive=ARCHIVE,
        )

    def agent(self, plane: Plane | None = None, name: str = "node-1") -> NodeClient:
        return NodeClient.enrolled(Node.Kind.AGENT, plane or self.plane, name)

    def builder(self, name: str = "builder-1") -> NodeClient:
        return NodeClient.enrolled(Node.Kind.BUILDER, None, name)

    def deploy(self, cell: Cell, text: str = SHOP, commit: str = "") -> Release:
        """A release of ``text`` that serves, by the whole way: build, start, switch, drain."""
        deployment = self.push(cell, commit)
        return self.carry(deployment, text)

    def carry(self, deployment: Deployment, text: str = SHOP) -> Release:
        """Take a waiting push to ``live``, acting as builder and node."""
        machine.advance(deployment.pk)
        built(deployment, text)
        return self.finish(deployment)

    def finish(self, deployment: Deployment) -> Release:
        """Take a deployment that has a release, or a build that is done, to ``live``."""
        machine.advance(deployment.pk)
        deployment.refresh_from_db()
        healthy(deployment)
        machine.advance(deployment.pk)
        acknowledge(deployment.cell.environment.plane)
        drained(deployment)
        deployment.refresh_from_db()
        assert deployment.state == Deployment.State.LIVE, (deployment.state, deployment.error)
        assert deployment.release is not None
        return deployment.release


def built(deployment: Deployment, text: str = SHOP) -> None:
    """The deployment's build ends well with a declared specification."""
    cell = deployment.cell
    declared = specification(text, cell.project.slug)
    digest = f"{next(_counter):064x}"
    images = dict.fromkeys(declared.components, f"{delivery.image_prefix(cell)}@sha256:{digest}")
    result = {"specification": declared.as_dict(), "images": images}
    Build.objects.filter(deployment=deployment).update(
        state=Build.State.DONE, result=result, ended_at=timezone.now()
    )


def healthy(deployment: Deployment) -> int:
    """The node says that every replica of the release is healthy; how many there are."""
    rows = Replica.objects.filter(release=deployment.release)
    return rows.update(phase=Replica.Phase.HEALTHY)


def acknowledge(plane: Plane) -> Node:
    """A node of the plane that has applied everything so far."""
    node, _ = Node.objects.get_or_create(plane=plane, kind=Node.Kind.AGENT, defaults={"name": "node-1"})
    generation = snapshots.rebuild(plane.pk)
    Node.objects.filter(pk=node.pk).update(acknowledged=generation, last_seen_at=timezone.now())
    return node


def drained(deployment: Deployment) -> str:
    """Let the time pass that old replicas get for what they still answer; the state after it."""
    machine.advance(deployment.pk)
    back = timezone.now() - machine.DRAIN - timedelta(seconds=1)
    Deployment.objects.filter(pk=deployment.pk, state=Deployment.State.DRAINING).update(state_since=back)
    return machine.advance(deployment.pk)


def certificate_request(key: ec.EllipticCurvePrivateKey | None = None) -> str:
    """A certificate request as a node makes it, PEM."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "node")])
    request = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, hashes.SHA256())
    return request.public_bytes(serialization.Encoding.PEM).decode()


class NodeClient:
    """A node behind the control gateway, which has verified its certificate and forwards its hash."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self._client = client()

    @classmethod
    def enrolled(cls, kind: str, plane: Plane | None, name: str) -> NodeClient:
        token = enrolment.create_token(kind, plane)
        node, _, _ = enrolment.enrol(token, certificate_request(), name, {})
        return cls(node)

    @property
    def certificate(self) -> Certificate:
        found = self.node.certificates.order_by("-pk").first()
        assert found is not None
        return found

    def __call__(self, method: str, path: str, body: Any = None, certificate: str | None = None):  # type: ignore[no-untyped-def]
        """The response of the agents' surface."""
        value = self.certificate.fingerprint if certificate is None else certificate
        headers = {"X-Forwarded-Client-Cert": f"Hash={value};URI=cytoplane://node/{self.node.pk}"}
        return surface(self._client, method, path, body, headers)


def surface(client: Client, method: str, path: str, body: Any = None, headers: Any = None):  # type: ignore[no-untyped-def]
    """A request to the agents' listener, which has addresses of its own."""
    from django.test import override_settings

    more: dict[str, Any] = {} if body is None else {"data": body, "content_type": "application/json"}
    with override_settings(ROOT_URLCONF="dataplane.planes.agent_urls"):
        return getattr(client, method.lower())(path, headers=headers or {}, **more)
