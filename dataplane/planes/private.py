"""Planes that dial in: a tenant's own, or a machine more for everybody. Made, joined, closed, removed.

Whoever may not see a plane is told that there is none.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from django.conf import settings
from django.db import IntegrityError, transaction
from django.db.models import Q, QuerySet
from django.utils import timezone

from controlplane.errors import CytoplaneError, not_found
from dataplane.planes import enrolment, joining
from dataplane.planes.models import Node, Plane
from tenants import audit, names
from tenants.models import Tenant
from tenants.policy import Actor, authorise, authorise_platform, may, visible_tenants

#: Of one tenant.
MOST = 20
HIGHEST_NET = 15


@dataclass(frozen=True)
class Invitation:
    """What lets one node into a plane: shown once."""

    plane: Plane
    token: str
    command: str
    expires_at: datetime
    #: Whether it is of use on this machine only: the operator has named no way to the listener.
    local: bool = False


def owned(actor: Actor, name: str, action: str = "manage planes") -> Plane:
    """The plane by name if the actor may do ``action`` to it; else as if there were none.

    Platform admins may with every plane, a tenant's owners with their own.
    """
    plane = Plane.objects.select_related("owner").filter(name=name).first()
    if plane is None:
        raise not_found("plane")
    if actor.is_platform_admin:
        return plane
    if plane.owner is None:
        raise not_found("plane")
    authorise(actor, action, plane.owner, kind="plane")
    return plane


def visible(actor: Actor) -> QuerySet[Plane]:
    """Planes that the actor may see, by name: all for platform admins, else those of their tenants."""
    found = Plane.objects.select_related("owner").order_by("name")
    if actor.is_platform_admin:
        return found
    return found.filter(owner__in=visible_tenants(actor).values("pk"))


def bindable(actor: Actor, tenant: Tenant) -> QuerySet[Plane]:
    """Planes that the tenant's environments can be on: its own and those for everybody."""
    authorise(actor, "read", tenant)
    return Plane.objects.filter(Q(owner=tenant) | Q(owner=None)).order_by("name")


def create(
    *, acting_user: Actor, name: str, engine: str, owner: str = "", net: int | None = None
) -> Invitation:
    """A plane that nobody has joined yet, and the command that does."""
    names.validate(name)
    if engine not in Plane.Engine.values:
        raise CytoplaneError("invalid", field="engine", message="An engine is machine or kubernetes.")
    if net is not None and not 0 <= net <= HIGHEST_NET:
        raise CytoplaneError("invalid", field="net", message=f"A net is 0 to {HIGHEST_NET}.")
    tenant = Tenant.objects.filter(slug=owner).first() if owner else None
    if owner and tenant is None:
        raise not_found("tenant")
    if tenant is None:
        authorise_platform(acting_user)
    elif not acting_user.is_platform_admin:
        authorise(acting_user, "manage planes", tenant)
    try:
        with transaction.atomic():
            if tenant is not None:
                Tenant.objects.select_for_update().get(pk=tenant.pk)
                if tenant.planes.count() >= MOST:
                    raise CytoplaneError(
                        "quota", tenant=tenant.slug, limit=MOST, what="planes", wanted=MOST + 1
                    )
            plane = Plane.objects.create(name=name, engine=engine, owner=tenant, net=net)
            audit.record(acting_user, "plane.create", plane, tenant=tenant, changes={"engine": engine})
            return _invite(acting_user, plane, plane.joins_as)
    except IntegrityError:
        raise CytoplaneError("name-taken", kind="plane", name=name)


@transaction.atomic
def invite(*, acting_user: Actor, name: str, kind: str = "") -> Invitation:
    """Another token for a plane. Builders belong to no plane: only platform admins get theirs."""
    plane = owned(acting_user, name)
    kind = kind or plane.joins_as
    if kind not in Node.Kind.values:
        raise CytoplaneError("invalid", field="kind", message="That isn't a kind of node.")
    if kind == Node.Kind.BUILDER or plane.owner is None or (kind != plane.joins_as):
        authorise_platform(acting_user)
    return _invite(acting_user, plane, kind)


def _invite(actor: Actor, plane: Plane, kind: str) -> Invitation:
    of_plane = None if kind == Node.Kind.BUILDER else plane
    token = enrolment.create_token(kind, of_plane, created_by=actor.name)
    audit.record(actor, "plane.token", plane, tenant=plane.owner, changes={"kind": kind})
    return Invitation(
        plane=plane,
        token=token,
        command=joining.command(plane, token) if kind == plane.joins_as else "",
        expires_at=timezone.now() + enrolment.TOKEN_LIFETIME,
        local=not settings.CONFIG.outside_names,
    )


@transaction.atomic
def revoke(*, acting_user: Actor, name: str) -> Plane:
    """Close a plane: certificates of all its nodes and tokens that nobody has used. What runs there goes on."""
    plane = owned(acting_user, name)
    # Its controller may be asking for a token, which is then one of these, or refused.
    Plane.objects.select_for_update().get(pk=plane.pk)
    enrolment.unused(plane).update(expires_at=timezone.now())
    enrolment.revoke(acting_user, plane.nodes.select_related("plane__owner").order_by("pk"))
    audit.record(acting_user, "plane.revoke", plane, tenant=plane.owner)
    return plane


@transaction.atomic
def revoke_node(*, acting_user: Actor, number: int) -> Node:
    """Close one node's certificates."""
    node = Node.objects.select_related("plane__owner").filter(pk=number).first()
    owner = node.plane.owner if node and node.plane else None
    if node is None or not (acting_user.is_platform_admin or (owner and may(acting_user, "read", owner))):
        raise not_found("node")
    if not acting_user.is_platform_admin:
        assert owner is not None
        authorise(acting_user, "manage planes", owner, kind="node")
    enrolment.revoke(acting_user, node)
    return node


@transaction.atomic
def remove(*, acting_user: Actor, name: str, confirm: str) -> None:
    """Forget a plane that no environment is on and where nothing is left. Its certificates end with it."""
    plane = owned(acting_user, name)
    if confirm != plane.name:
        raise CytoplaneError("confirmation-missing", kind="plane", name=plane.name)
    plane = Plane.objects.select_for_update(of=("self",)).select_related("owner").get(pk=plane.pk)
    if plane.environments.exists() or plane.replicas.exists() or plane.places.exists():
        raise CytoplaneError(
            "conflict",
            message=f"Environments are on {plane.name}, or something of their cells is still there.",
        )
    audit.record(acting_user, "plane.remove", plane, tenant=plane.owner)
    plane.delete()
