"""How a node becomes known: a one-time token against a certificate, then renewals."""

from __future__ import annotations

import hashlib
import re
import secrets
from datetime import timedelta

from django.db import transaction
from django.utils import timezone

from controlplane.errors import CytoplaneError
from dataplane.planes import authority
from dataplane.planes.models import Certificate, EnrolmentToken, Node, Plane
from tenants import audit

TOKEN_LIFETIME = timedelta(hours=1)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}")


def create_token(kind: str, plane: Plane | None) -> str:
    """A one-time token; it carries the authority's fingerprint, so that the node knows whom to trust."""
    secret = secrets.token_urlsafe(32)
    EnrolmentToken.objects.create(
        digest=hashlib.sha256(secret.encode()).hexdigest(),
        kind=kind,
        plane=plane,
        expires_at=timezone.now() + TOKEN_LIFETIME,
    )
    return f"cye_{secret}.{authority.Authority().fingerprint}"


@transaction.atomic
def enrol(token: str, csr_pem: str, name: str, facts: dict) -> tuple[Node, str, str]:
    """(node, certificate, authority), both PEM. The token is used up even by a second attempt's name."""
    secret = token.removeprefix("cye_").partition(".")[0]
    digest = hashlib.sha256(secret.encode()).hexdigest()
    row = (
        EnrolmentToken.objects.select_for_update(of=("self",))
        .select_related("plane")
        .filter(digest=digest)
        .first()
    )
    if row is None or row.used_at or row.expires_at < timezone.now() or not _NAME.fullmatch(name):
        raise CytoplaneError("enrolment-refused")
    if row.plane_id:
        # Two nodes with two tokens at once: the second one sees the first.
        Plane.objects.select_for_update().get(pk=row.plane_id)
    if row.kind == Node.Kind.AGENT and row.plane and row.plane.engine == Plane.Engine.MACHINE:
        # A machine plane has exactly one node: enrolling again replaces its certificates.
        node = Node.objects.filter(plane=row.plane, kind=row.kind).first()
        if node is not None and node.name != name:
            raise CytoplaneError("enrolment-refused")
    node, _ = Node.objects.update_or_create(
        plane=row.plane, kind=row.kind, name=name, defaults={"facts": facts, "acknowledged": 0}
    )
    row.used_at = timezone.now()
    row.save(update_fields=["used_at"])
    node.certificates.filter(revoked_at=None).update(revoked_at=timezone.now())
    audit.record("enrolment token", "node.enrol", node, changes={"kind": row.kind})
    return node, *_certify(node, csr_pem)


@transaction.atomic
def renew(node: Node, csr_pem: str) -> tuple[str, str]:
    """A fresh certificate; the one before goes on until it ends."""
    return _certify(node, csr_pem)


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
def revoke(acting: str, node: Node) -> None:
    """From now on the node's certificates open nothing."""
    node.certificates.filter(revoked_at=None).update(revoked_at=timezone.now())
    audit.record(acting, "node.revoke", node)
