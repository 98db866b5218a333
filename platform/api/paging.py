"""Pages of lists: newest first, `before` an id, at most 200."""

from __future__ import annotations

from django.db.models import QuerySet

MOST = 200


def page(rows: QuerySet, before: int | None, limit: int) -> list:
    """At most ``limit`` rows that are older than ``before``."""
    if before is not None:
        rows = rows.filter(pk__lt=before)
    return list(rows[: max(1, min(limit, MOST))])
