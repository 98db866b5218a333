"""The only writers of tenants, members and tokens. Each is atomic and audited."""

from __future__ import annotations

from django.core.exceptions import ValidationError
from django.core.validators import validate_email
from django.db import IntegrityError, transaction
from django.utils import timezone

from controlplane.errors import CytoplaneError, not_found
from tenants import audit, keys, names, tokens
from tenants.models import Membership, Plan, Role, Tenant, Token, User
from tenants.policy import Actor, authorise, authorise_platform


@transaction.atomic
def create_tenant(
    *, acting_user: Actor, slug: str, name: str = "", plan: str = "standard", owner: User | None = None
) -> Tenant:
    """A new tenant with its key, its two environments and an owner. Platform admins only."""
    authorise_platform(acting_user)
    names.validate_tenant(slug)
    plan_row = Plan.objects.filter(name=plan).first()
    if plan_row is None:
        raise not_found("plan")
    try:
        with transaction.atomic():
            tenant = Tenant.objects.create(slug=slug, name=name or slug, plan=plan_row)
    except IntegrityError:
        raise CytoplaneError("name-taken", kind="tenant", name=slug)
    keys.create(tenant)
    from projects.actions import create_default_environments

    create_default_environments(tenant)
    if owner:
        Membership.objects.create(tenant=tenant, user=owner, role=Role.OWNER)
    audit.record(acting_user, "tenant.create", tenant, tenant=tenant, changes={"plan": plan})
    return tenant


@transaction.atomic
def set_tenant_state(*, acting_user: Actor, tenant: Tenant, state: str) -> Tenant:
    """Suspend or reactivate. What runs goes on; nothing can be changed while suspended."""
    authorise_platform(acting_user)
    if state not in Tenant.State.values:
        raise CytoplaneError("invalid", field="state", message=f"`{state}` isn't a state.")
    before, tenant.state = tenant.state, state
    tenant.save(update_fields=["state"])
    audit.record(acting_user, "tenant.state", tenant, tenant=tenant, changes={"state": [before, state]})
    return tenant


@transaction.atomic
def create_user(
    *, acting_user: Actor | None, email: str, password: str, name: str = "", admin: bool = False
) -> User:
    """A new account. ``acting_user`` None is the installer."""
    if acting_user is not None:
        authorise_platform(acting_user)
    try:
        validate_email(email)
    except ValidationError:
        raise CytoplaneError("invalid", field="email", message=f"`{email[:80]}` isn't an email address.")
    if User.objects.filter(email=email.lower()).exists():
        raise CytoplaneError("name-taken", kind="account", name=email)
    if len(password) < 12:
        raise CytoplaneError("invalid", field="password", message="A password has at least 12 characters.")
    user = User.objects.create_user(email, password, name=name, is_platform_admin=admin)
    audit.record(acting_user or "installer", "user.create", user, changes={"admin": admin})
    return user


@transaction.atomic
def set_member(*, acting_user: Actor, tenant: Tenant, email: str, role: str) -> Membership:
    """Add an existing account to the tenant or change its role. Owners are made by owners only."""
    authorise(acting_user, "manage members", tenant)
    if role not in Role.values:
        raise CytoplaneError("invalid", field="role", message=f"Roles are {', '.join(Role.values)}.")
    user = User.objects.filter(email=email.strip().lower(), is_active=True).first()
    if user is None:
        raise not_found("account")
    Tenant.objects.select_for_update().get(pk=tenant.pk)  # serialises the last-owner check
    row = Membership.objects.filter(tenant=tenant, user=user).first()
    before = row.role if row else None
    if Role.OWNER in (role, before):
        authorise(acting_user, "manage owners", tenant)
    if before == Role.OWNER and role != Role.OWNER:
        _keep_an_owner(tenant, user)
    row, _ = Membership.objects.update_or_create(tenant=tenant, user=user, defaults={"role": role})
    audit.record(
        acting_user, "member.set", row, tenant=tenant, name=user.email, changes={"role": [before, role]}
    )
    return row


@transaction.atomic
def remove_member(*, acting_user: Actor, tenant: Tenant, email: str) -> None:
    """Take somebody out of the tenant; their tokens for it stop working at once."""
    authorise(acting_user, "manage members", tenant)
    Tenant.objects.select_for_update().get(pk=tenant.pk)
    row = tenant.memberships.select_related("user").filter(user__email=email.strip().lower()).first()
    if row is None:
        raise not_found("member")
    if row.role == Role.OWNER:
        authorise(acting_user, "manage owners", tenant)
        _keep_an_owner(tenant, row.user)
    audit.record(acting_user, "member.remove", row, tenant=tenant, name=row.user.email)
    Token.objects.filter(user=row.user, tenant=tenant, revoked_at=None).update(revoked_at=timezone.now())
    row.delete()


def _keep_an_owner(tenant: Tenant, leaving: User) -> None:
    if not tenant.memberships.filter(role=Role.OWNER).exclude(user=leaving).exists():
        raise CytoplaneError("last-owner", email=leaving.email, tenant=tenant.slug)


@transaction.atomic
def create_token(
    *, acting_user: Actor, name: str, scopes: list[str], days: int, tenant: Tenant | None = None
) -> tuple[Token, str]:
    """A token for the actor, narrowed to ``tenant`` if given. A token can't make a wider token."""
    if tenant is not None:
        authorise(acting_user, "read", tenant)
    _manages_tokens(acting_user)
    if acting_user.token is not None:
        missing = [scope for scope in scopes if scope not in acting_user.token.scopes]
        if missing:
            raise CytoplaneError("token-scope", scope=missing[0])
        if acting_user.token.tenant_id and (tenant is None or tenant.pk != acting_user.token.tenant_id):
            raise not_found("tenant")
    token, secret = tokens.issue(acting_user.user, name=name, scopes=scopes, days=days, tenant=tenant)
    audit.record(
        acting_user, "token.create", token, tenant=tenant, name=token.name, changes={"scopes": token.scopes}
    )
    return token, secret


@transaction.atomic
def revoke_token(*, acting_user: Actor, token_id: int) -> None:
    """Revoke one of the actor's own tokens. The token that asks may always end itself."""
    if acting_user.token is None or acting_user.token.pk != token_id:
        _manages_tokens(acting_user)
    token = Token.objects.filter(pk=token_id, user=acting_user.user, revoked_at=None).first()
    if token is None:
        raise not_found("token")
    token.revoked_at = timezone.now()
    token.save(update_fields=["revoked_at"])
    audit.record(acting_user, "token.revoke", token, tenant=token.tenant, name=token.name)


def _manages_tokens(actor: Actor) -> None:
    """Else a leaked token that may only read could outlive its end, or end all the others."""
    if actor.token is not None and "manage" not in actor.token.scopes:
        raise CytoplaneError("token-scope", scope="manage")
