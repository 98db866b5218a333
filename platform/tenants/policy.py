"""Who may do what. One function, used by API, portal, git and CLI alike.

``authorise(actor, action, tenant)`` either returns or raises. What an actor can't even read is
answered as not found, so that nobody can probe for names; only somebody who may read a tenant
learns that a role or a scope is too small.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from controlplane.errors import CytoplaneError, not_found
from tenants.models import Membership, Role, Tenant, Token, User

#: action → (roles that may, token scope it needs, allowed while suspended)
_EVERYBODY = frozenset(Role.values)
_WRITERS = frozenset({Role.OWNER, Role.ADMIN, Role.DEVELOPER})
_ADMINS = frozenset({Role.OWNER, Role.ADMIN})
_OWNERS = frozenset({Role.OWNER})

ACTIONS: dict[str, tuple[frozenset[str], str]] = {
    "read": (_EVERYBODY, "read"),
    "read audit": (_ADMINS, "read"),
    "push": (_WRITERS, "deploy"),
    "deploy": (_WRITERS, "deploy"),
    "configure": (_WRITERS, "deploy"),
    "scale": (_WRITERS, "deploy"),
    "run commands": (_WRITERS, "deploy"),
    "create project": (_WRITERS, "manage"),
    "destroy project": (_ADMINS, "manage"),
    "manage environments": (_ADMINS, "manage"),
    "manage members": (_ADMINS, "manage"),
    "manage owners": (_OWNERS, "manage"),
    "manage planes": (_OWNERS, "manage"),
}

PLATFORM_ACTIONS = frozenset({"administer platform"})
SCOPES = ("read", "deploy", "manage")


@dataclass(frozen=True)
class Actor:
    """Somebody who acts: a user, by session or by token. ``memberships`` is tenant id → role."""

    user: User
    token: Token | None = None
    request_id: str = ""
    memberships: dict[int, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """How the audit log calls this actor."""
        return f"{self.user.email} (token {self.token.prefix})" if self.token else self.user.email

    def role(self, tenant_id: int) -> str | None:
        """The role in a tenant; None where the actor has none or the token is for another one."""
        if self.token and self.token.tenant_id and self.token.tenant_id != tenant_id:
            return None
        return self.memberships.get(tenant_id)

    @property
    def is_platform_admin(self) -> bool:
        """Platform rights never come by a token that is narrowed to a tenant or to reading."""
        if self.token and (self.token.tenant_id or "manage" not in self.token.scopes):
            return False
        return self.user.is_platform_admin


def actor_for(user: User, token: Token | None = None, request_id: str = "") -> Actor:
    """An actor with memberships read once."""
    memberships = dict(Membership.objects.filter(user=user).values_list("tenant_id", "role"))
    return Actor(user=user, token=token, request_id=request_id, memberships=memberships)


def may(actor: Actor, action: str, tenant: Tenant) -> bool:
    """Whether ``authorise`` would pass; for showing or hiding buttons."""
    try:
        authorise(actor, action, tenant)
    except CytoplaneError:
        return False
    return True


def authorise(actor: Actor, action: str, tenant: Tenant, kind: str = "tenant") -> None:
    """Raise unless ``actor`` may perform ``action`` in ``tenant``.

    ``kind`` names the object in a not-found answer. Platform admins may read every tenant and
    administer it, but not act inside it as if they were its members.
    """
    roles, scope = ACTIONS[action]
    role = actor.role(tenant.pk)
    if role is None:
        if not (actor.is_platform_admin and action in ("read", "read audit")):
            raise not_found(kind)
    elif role not in roles:
        raise CytoplaneError("forbidden", role=role, action=action, tenant=tenant.slug)
    if actor.token and scope not in actor.token.scopes:
        raise CytoplaneError("token-scope", scope=scope)
    if tenant.state == Tenant.State.SUSPENDED and action not in ("read", "read audit"):
        raise CytoplaneError("tenant-suspended", tenant=tenant.slug)


def authorise_platform(actor: Actor) -> None:
    """Raise unless the actor administers the platform; others are told that nothing is here."""
    if not actor.is_platform_admin:
        raise not_found("page")


def visible_tenants(actor: Actor):
    """The tenants that the actor may see: a queryset, by name."""
    tenants = Tenant.objects.select_related("plan").order_by("slug")
    if actor.is_platform_admin:
        return tenants
    ids = [tenant_id for tenant_id in actor.memberships if actor.role(tenant_id)]
    return tenants.filter(pk__in=ids)


def get_tenant(actor: Actor, slug: str, action: str = "read") -> Tenant:
    """The tenant by name if the actor may perform ``action`` there; else as if it didn't exist."""
    tenant = Tenant.objects.select_related("plan").filter(slug=slug).first()
    if tenant is None:
        raise not_found("tenant")
    authorise(actor, action, tenant)
    return tenant
