"""Bearer tokens: made once, shown once, stored as a digest."""

from __future__ import annotations

import hashlib
import secrets
from datetime import timedelta

from django.db.models import Q
from django.utils import timezone

from controlplane.errors import CytoplaneError
from tenants.models import Tenant, Token, User
from tenants.policy import SCOPES

#: ``last_used_at`` is written at most this often, so that reading stays reading.
_USE_RESOLUTION = timedelta(minutes=5)
MAXIMUM_DAYS = 366
#: Live ones of a person at once, and how long dead ones are kept to be looked up.
MOST, KEPT = 1000, timedelta(days=30)


def digest(secret: str) -> str:
    """SHA-256, hex. The secret has 256 random bits, so a slow hash would add nothing."""
    return hashlib.sha256(secret.encode()).hexdigest()


def issue(
    user: User, *, name: str, scopes: list[str], days: int, tenant: Tenant | None = None
) -> tuple[Token, str]:
    """A new token row and its secret, which is not kept."""
    unknown = [scope for scope in scopes if scope not in SCOPES]
    if unknown or not scopes:
        raise CytoplaneError(
            "invalid",
            field="scopes",
            message=f"Scopes are {', '.join(SCOPES)}; not {', '.join(unknown) or 'none'}.",
        )
    if not 1 <= days <= MAXIMUM_DAYS:
        raise CytoplaneError("invalid", field="days", message=f"A token lives 1 to {MAXIMUM_DAYS} days.")
    now = timezone.now()
    user.tokens.filter(Q(expires_at__lt=now - KEPT) | Q(revoked_at__lt=now - KEPT)).delete()
    if user.tokens.filter(revoked_at=None, expires_at__gt=now).count() >= MOST:
        message = (
            f"You have {MOST} tokens, which is the most. Revoke one first: in the portal, or `cyto tokens`."
        )
        raise CytoplaneError("conflict", message=message)
    secret = "cy_" + secrets.token_urlsafe(32)
    token = Token.objects.create(
        user=user,
        tenant=tenant,
        name=name[:80],
        prefix=secret[:9],
        digest=digest(secret),
        scopes=sorted(set(scopes)),
        expires_at=now + timedelta(days=days),
    )
    return token, secret


def resolve(secret: str) -> Token:
    """The live token of a secret, else `token-invalid`."""
    token = Token.objects.select_related("user").filter(digest=digest(secret)).first()
    now = timezone.now()
    if token is None or token.revoked_at or token.expires_at <= now or not token.user.is_active:
        raise CytoplaneError("token-invalid")
    if token.last_used_at is None or now - token.last_used_at > _USE_RESOLUTION:
        Token.objects.filter(pk=token.pk).update(last_used_at=now)
    return token
