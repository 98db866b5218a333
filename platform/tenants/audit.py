"""Writing audit events. Call inside the transaction that makes the change."""

from __future__ import annotations

from django.db import models, transaction

from tenants.models import AuditEvent, Tenant
from tenants.policy import Actor


def record(
    actor: Actor | str,
    verb: str,
    obj: models.Model,
    *,
    tenant: Tenant | None = None,
    name: str | None = None,
    changes: dict | None = None,
) -> AuditEvent:
    """Record that ``actor`` did ``verb`` to ``obj``; ``changes`` must hold no secret values."""
    if not transaction.get_connection().in_atomic_block:
        raise RuntimeError("audit events are written in the transaction of the change")
    return AuditEvent.objects.create(
        tenant=tenant,
        actor=actor if isinstance(actor, str) else actor.name,
        verb=verb,
        object_type=obj._meta.model_name or "",
        object_id=str(obj.pk),
        object_name=(name or str(obj))[:160],
        changes=changes or {},
        request_id="" if isinstance(actor, str) else actor.request_id,
    )
