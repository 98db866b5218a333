"""How a node becomes known: a one-time token against a certificate, then renewals."""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Iterable
from datetime import timedelta

from django.db import connection, transaction
from django.db.models import QuerySet
from django.utils import timezone

from controlplane.errors import CytoplaneError
from dataplane.planes import authority, gateways
from dataplane.planes.models import Certificate, EnrolmentToken, Node, Plane
from tenants import audit
from tenants.policy import Actor

TOKEN_LIFETIME = timedelta(hours=1)
#: Tokens that a plane's controller gets within an hour: for all its nodes, and for one of them.
NODE_TOKENS, NODE_TOKENS_EACH = 1000, 10
_PACE = timedelta(hours=1)
#: Certificates that a node gets within an hour; it needs one in some days.
RENEWALS = 20
#: Of advisory locks.
_LOCK_CLASS = 7002
#: Who made the tokens that are counted.
_CONTROLLER = "controller"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}")


def digest_of(token: str) -> str:
    """What is kept of a token."""
    secret = token.removeprefix("cye_").partition(".")[0]
    return hashlib.sha256(secret.encode(errors="replace")).hexdigest()


def create_token(kind: str, plane: Plane | None, *, node_name: str = "", created_by: str = "") -> str:
    """A one-time token; it carries the authority's fingerprint, so that the node knows whom to trust."""
    # What can't be used any more, and counts for no pace, is of no use to anybody.
    EnrolmentToken.objects.filter(expires_at__lt=timezone.now() - 2 * TOKEN_LIFETIME).delete()
    token = f"cye_{secrets.token_urlsafe(32)}.{authority.Authority().fingerprint}"
    EnrolmentToken.objects.create(
        digest=digest_of(token),
        kind=kind,
        plane=plane,
        node_name=node_name,
        created_by=created_by,
        expires_at=timezone.now() + TOKEN_LIFETIME,
    )
    return token


@transaction.atomic
def create_node_token(controller: Node, name: str) -> str:
    """A token with which the agent of one node of the controller's own plane enrols, and no other node.

    Raises `node-tokens-paced` for too many: whoever has a controller's certificate can't fill the table.
    """
    if not _NAME.fullmatch(name):
        raise CytoplaneError("invalid", field="name", message="That can't be a node's name.")
    plane = Plane.objects.select_for_update(of=("self",)).select_related("owner").get(pk=controller.plane_id)
    _standing(controller)
    known = plane.nodes.filter(kind=Node.Kind.AGENT, name=name).first()
    if known and not known.certificates.filter(revoked_at=None).exists():
        # Somebody has closed it: the controller doesn't let it in again behind their back.
        raise CytoplaneError("node-revoked", node=name)
    lately = EnrolmentToken.objects.filter(
        plane=plane, created_by=_CONTROLLER, created_at__gt=timezone.now() - _PACE
    )
    if lately.count() >= NODE_TOKENS or lately.filter(node_name=name).count() >= NODE_TOKENS_EACH:
        raise CytoplaneError("node-tokens-paced", plane=plane.name)
    # One at a time is enough; the one before was lost or stolen.
    unused(plane).filter(created_by=_CONTROLLER, node_name=name).update(expires_at=timezone.now())
    token = create_token(Node.Kind.AGENT, plane, node_name=name, created_by=_CONTROLLER)
    audit.record(
        f"controller of {plane.name}", "node.token", plane, tenant=plane.owner, changes={"node": name}
    )
    return token


def unused(plane: Plane) -> QuerySet[EnrolmentToken]:
    """Tokens of a plane that still open something."""
    return EnrolmentToken.objects.filter(plane=plane, used_at=None, expires_at__gt=timezone.now())


def redeemable(token: str) -> Plane | None:
    """The plane that a token would let a node into, without using it up; None for any other text."""
    row = EnrolmentToken.objects.select_related("plane").filter(digest=digest_of(token)).first()
    return row.plane if row and not row.used_at and row.expires_at > timezone.now() else None


@transaction.atomic
def enrol(token: str, csr_pem: str, name: str, facts: dict) -> tuple[Node, str, str]:
    """(node, certificate, authority), both PEM. A refused name doesn't use the token up."""
    found = EnrolmentToken.objects.filter(digest=digest_of(token))
    # Two nodes with two tokens at once: the second one sees the first. Planes are locked before all else.
    _lock_planes(found.values_list("plane_id", flat=True))
    row = found.select_for_update(of=("self",)).select_related("plane__owner").first()
    if row is None or row.used_at or row.expires_at < timezone.now() or not _NAME.fullmatch(name):
        raise CytoplaneError("enrolment-refused")
    if row.node_name and row.node_name != name:
        raise CytoplaneError("enrolment-refused")
    if row.plane is None:
        _one_builder_at_a_time()
    elif row.kind == row.plane.joins_as:
        _only_one(row.plane, row.kind, name)
    node, fresh = Node.objects.update_or_create(
        plane=row.plane, kind=row.kind, name=name, defaults={"facts": facts, "acknowledged": 0}
    )
    if not fresh:
        node.enrolment += 1
        node.save(update_fields=["enrolment"])
    row.used_at = timezone.now()
    row.save(update_fields=["used_at"])
    node.certificates.filter(revoked_at=None).update(revoked_at=timezone.now())
    audit.record(
        "enrolment token",
        "node.enrol",
        node,
        tenant=row.plane.owner if row.plane else None,
        changes={"kind": row.kind},
    )
    made = _certify(node, csr_pem)
    gateways.changed(row.plane)
    return node, *made


def _one_builder_at_a_time() -> None:
    """Builders have no plane to lock, and to the database names without a plane are never the same."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s, 0)", [_LOCK_CLASS])


def _only_one(plane: Plane, kind: str, name: str) -> None:
    """A machine plane has one agent, a cluster one controller: enrolling again replaces its certificates.

    Another machine takes the place of one that was revoked, under its own name.
    """
    node = Node.objects.filter(plane=plane, kind=kind).first()
    if node is None or node.name == name:
        return
    if node.certificates.filter(revoked_at=None).exists():
        raise CytoplaneError("enrolment-refused")
    node.name = name
    node.save(update_fields=["name"])


@transaction.atomic
def renew(node: Node, csr_pem: str) -> tuple[str, str]:
    """A fresh certificate; the one before goes on until it ends."""
    node = _standing(node)
    ends = timezone.now() + authority.NODE_LIFETIME - _PACE
    if node.certificates.filter(expires_at__gt=ends).count() >= RENEWALS:
        raise CytoplaneError("conflict", message=f"{node.name} has {RENEWALS} certificates of this hour.")
    return _certify(node, csr_pem)


def _standing(node: Node) -> Node:
    """The node, locked, if it still is what it was when its certificate was looked at.

    Else whoever was revoked, or replaced by another enrolment, meanwhile would be given a way back in:
    it only needs a request that is under way at any time.
    """
    found = Node.objects.select_for_update(of=("self",)).select_related("plane").filter(pk=node.pk).first()
    if found is None or found.enrolment != node.enrolment:
        raise CytoplaneError("certificate-refused")
    if not found.certificates.filter(revoked_at=None).exists():
        raise CytoplaneError("certificate-refused")
    return found


def _lock_planes(numbers: Iterable[int | None]) -> None:
    list(
        Plane.objects.select_for_update().filter(pk__in=[n for n in numbers if n is not None]).order_by("pk")
    )


def _certify(node: Node, csr_pem: str) -> tuple[str, str]:
    signer = authority.Authority()
    try:
        certificate = signer.sign_node(csr_pem, node.pk)
    except ValueError as error:
        raise CytoplaneError("invalid", field="csr_pem", message=f"{error}.") from error
    Certificate.objects.create(
        node=node,
        fingerprint=authority.fingerprint(certificate),
        expires_at=certificate.not_valid_after_utc,
    )
    return authority.pem(certificate), signer.pem


@transaction.atomic
def revoke(acting: Actor | str, nodes: Node | Iterable[Node]) -> None:
    """From now on the nodes' certificates open nothing, polls that are open now included."""
    closed = [nodes] if isinstance(nodes, Node) else list(nodes)
    _lock_planes({node.plane_id for node in closed})
    for node in closed:
        # Who is just being given a certificate has it by now, so that it is closed too.
        Node.objects.select_for_update().filter(pk=node.pk).first()
        node.certificates.filter(revoked_at=None).update(revoked_at=timezone.now())
        tenant = node.plane.owner if node.plane else None
        audit.record(acting, "node.revoke", node, tenant=tenant)
        if node.plane is not None and node.kind == Node.Kind.CONTROLLER:
            # It may have kept some for later.
            unused(node.plane).filter(created_by=_CONTROLLER).update(expires_at=timezone.now())
        if node.plane_id:
            _wake(node.plane_id)
            gateways.changed(node.plane)


def _wake(plane_id: int) -> None:
    """Make open polls look at their certificates; without it they do within two seconds."""
    from dataplane.planes import snapshots

    transaction.on_commit(lambda: snapshots.wake(plane_id))
