"""Reads of tenants for API and portal. Callers have authorised already."""

from __future__ import annotations

from django.db.models import Count, QuerySet

from tenants.models import AuditEvent, Membership, Tenant, Token, User


def members(tenant: Tenant) -> QuerySet[Membership]:
    return tenant.memberships.select_related("user").order_by("user__email")


def audit_events(tenant: Tenant | None = None) -> QuerySet[AuditEvent]:
    """Newest first; of all tenants if none is given."""
    events = AuditEvent.objects.select_related("tenant")
    return events.filter(tenant=tenant) if tenant else events


def tokens_of(user: User) -> QuerySet[Token]:
    return user.tokens.filter(revoked_at=None).select_related("tenant").order_by("-created_at")


def all_tenants() -> QuerySet[Tenant]:
    """Every tenant with counts, for the admin page."""
    return (
        Tenant.objects.select_related("plan")
        .annotate(
            member_count=Count("memberships", distinct=True), project_count=Count("projects", distinct=True)
        )
        .order_by("slug")
    )
