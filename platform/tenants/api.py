"""REST API of tenants, members, tokens and audit."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest
from ninja import Router, Schema

from api.paging import page
from controlplane.errors import CytoplaneError
from tenants import actions, queries, signin
from tenants.models import AuditEvent, Membership, Tenant, Token, User
from tenants.policy import Actor, actor_for, authorise_platform, get_tenant, visible_tenants

router = Router()
public = Router()


class SignIn(Schema):
    email: str
    password: str
    name: str = "cli"
    days: int = 90
    scopes: list[str] = ["read", "deploy", "manage"]


class NewTenant(Schema):
    slug: str
    name: str = ""
    plan: str = "standard"
    owner: str = ""


class TenantState(Schema):
    state: str


class NewUser(Schema):
    email: str
    password: str
    name: str = ""
    admin: bool = False


class Member(Schema):
    role: str


class NewToken(Schema):
    name: str
    scopes: list[str] = ["read"]
    days: int = 90
    tenant: str = ""


def actor_of(request: HttpRequest) -> Actor:
    """The actor that authentication found."""
    return request.auth  # type: ignore[attr-defined]


def tenant_out(tenant: Tenant, role: str | None = None) -> dict[str, Any]:
    return {
        "slug": tenant.slug,
        "name": tenant.name,
        "state": tenant.state,
        "plan": tenant.plan.name,
        "role": role,
    }


def token_out(token: Token) -> dict[str, Any]:
    return {
        "id": token.pk,
        "name": token.name,
        "prefix": token.prefix,
        "scopes": token.scopes,
        "tenant": token.tenant.slug if token.tenant else None,
        "expires_at": token.expires_at,
        "last_used_at": token.last_used_at,
        "created_at": token.created_at,
    }


@public.post("/tokens", operation_id="sign_in", summary="Email and password for a token")
def sign_in(request: HttpRequest, body: SignIn) -> dict[str, Any]:
    user = signin.verify(body.email, body.password, signin.address_of(request))
    actor = actor_for(user, request_id=getattr(request, "request_id", ""))
    token, secret = actions.create_token(
        acting_user=actor, name=body.name, scopes=body.scopes, days=body.days
    )
    return {"token": secret, **token_out(token)}


@router.get("/me", operation_id="me", summary="Who I am")
def me(request: HttpRequest) -> dict[str, Any]:
    actor = actor_of(request)
    return {
        "email": actor.user.email,
        "name": actor.user.name,
        "platform_admin": actor.is_platform_admin,
        "tenants": [tenant_out(t, actor.role(t.pk)) for t in visible_tenants(actor)],
    }


@router.get("/me/tokens", operation_id="list_tokens", summary="My tokens")
def list_tokens(request: HttpRequest) -> list[dict[str, Any]]:
    return [token_out(token) for token in queries.tokens_of(actor_of(request).user)]


@router.post("/me/tokens", operation_id="create_token", summary="Make a token; it is shown once")
def create_token(request: HttpRequest, body: NewToken) -> dict[str, Any]:
    actor = actor_of(request)
    tenant = get_tenant(actor, body.tenant) if body.tenant else None
    token, secret = actions.create_token(
        acting_user=actor, name=body.name, scopes=body.scopes, days=body.days, tenant=tenant
    )
    return {"token": secret, **token_out(token)}


@router.delete("/me/tokens/{number}", operation_id="revoke_token", summary="Revoke a token")
def revoke_token(request: HttpRequest, number: int) -> dict[str, Any]:
    actions.revoke_token(acting_user=actor_of(request), token_id=number)
    return {}


@router.delete("/me/token", operation_id="sign_out", summary="Revoke the token of this request")
def sign_out(request: HttpRequest) -> dict[str, Any]:
    actor = actor_of(request)
    if actor.token is None:
        raise CytoplaneError("not-signed-in")
    actions.revoke_token(acting_user=actor, token_id=actor.token.pk)
    return {}


@router.get("/tenants", operation_id="list_tenants", summary="Tenants that I can see")
def list_tenants(request: HttpRequest) -> list[dict[str, Any]]:
    actor = actor_of(request)
    return [tenant_out(t, actor.role(t.pk)) for t in visible_tenants(actor)]


@router.get("/tenants/{slug}", operation_id="get_tenant", summary="A tenant")
def read_tenant(request: HttpRequest, slug: str) -> dict[str, Any]:
    from projects import quotas

    actor = actor_of(request)
    tenant = get_tenant(actor, slug)
    used, plan = quotas.usage(tenant), tenant.plan
    return tenant_out(tenant, actor.role(tenant.pk)) | {
        "usage": {
            "components": [used.components, plan.components],
            "replicas": [used.replicas, plan.replicas],
            "memory_mib": [used.memory, plan.memory_mib],
            "cpu": [round(used.cpu, 2), plan.cpu],
        },
        "ceilings": {
            "bandwidth_mbit": plan.bandwidth_mbit,
            "connections_per_second": plan.connections_per_second,
            "connections": plan.connections,
        },
    }


@router.get("/tenants/{slug}/members", operation_id="list_members", summary="Members and roles")
def list_members(request: HttpRequest, slug: str) -> list[dict[str, Any]]:
    tenant = get_tenant(actor_of(request), slug)
    return [member_out(row) for row in queries.members(tenant)]


def member_out(row: Membership) -> dict[str, Any]:
    return {"email": row.user.email, "name": row.user.name, "role": row.role, "since": row.created_at}


@router.put(
    "/tenants/{slug}/members/{email}", operation_id="set_member", summary="Add a member or change a role"
)
def set_member(request: HttpRequest, slug: str, email: str, body: Member) -> dict[str, Any]:
    tenant = get_tenant(actor_of(request), slug)
    row = actions.set_member(acting_user=actor_of(request), tenant=tenant, email=email, role=body.role)
    return member_out(row)


@router.delete("/tenants/{slug}/members/{email}", operation_id="remove_member", summary="Remove a member")
def remove_member(request: HttpRequest, slug: str, email: str) -> dict[str, Any]:
    tenant = get_tenant(actor_of(request), slug)
    actions.remove_member(acting_user=actor_of(request), tenant=tenant, email=email)
    return {}


@router.get("/tenants/{slug}/audit", operation_id="audit", summary="What was done in a tenant")
def audit(
    request: HttpRequest, slug: str, before: int | None = None, limit: int = 50
) -> list[dict[str, Any]]:
    tenant = get_tenant(actor_of(request), slug, "read audit")
    return [event_out(event) for event in page(queries.audit_events(tenant), before, limit)]


def event_out(event: AuditEvent) -> dict[str, Any]:
    return {
        "id": event.pk,
        "at": event.at,
        "actor": event.actor,
        "verb": event.verb,
        "object": {"type": event.object_type, "id": event.object_id, "name": event.object_name},
        "changes": event.changes,
        "request_id": event.request_id,
    }


# Administration of the platform.


@router.post("/admin/tenants", operation_id="create_tenant", summary="Create a tenant (platform admins)")
def create_tenant(request: HttpRequest, body: NewTenant) -> dict[str, Any]:
    actor = actor_of(request)
    authorise_platform(actor)
    owner = None
    if body.owner:
        owner = User.objects.filter(email=body.owner.lower()).first()
        if owner is None:
            raise CytoplaneError("not-found", kind="account")
    tenant = actions.create_tenant(
        acting_user=actor, slug=body.slug, name=body.name, plan=body.plan, owner=owner
    )
    return tenant_out(tenant)


@router.patch(
    "/admin/tenants/{slug}", operation_id="set_tenant_state", summary="Suspend or reactivate a tenant"
)
def set_tenant_state(request: HttpRequest, slug: str, body: TenantState) -> dict[str, Any]:
    actor = actor_of(request)
    authorise_platform(actor)
    tenant = actions.set_tenant_state(acting_user=actor, tenant=get_tenant(actor, slug), state=body.state)
    return tenant_out(tenant)


@router.post("/admin/users", operation_id="create_user", summary="Create an account (platform admins)")
def create_user(request: HttpRequest, body: NewUser) -> dict[str, Any]:
    user = actions.create_user(
        acting_user=actor_of(request),
        email=body.email,
        password=body.password,
        name=body.name,
        admin=body.admin,
    )
    return {"email": user.email, "name": user.name, "platform_admin": user.is_platform_admin}
