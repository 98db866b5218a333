"""Pages of lists: newest first, `before` what the last row of the page before is called, at most 200."""

from __future__ import annotations

from django.db.models import QuerySet

MOST = 200


def page(rows: QuerySet, before: int | None, limit: int, key: str = "pk") -> list:
    """At most ``limit`` rows that are older than ``before``, a value of the column ``key``."""
    if before is not None:
        rows = rows.filter(**{f"{key}__lt": before})
    return list(rows[: max(1, min(limit, MOST))])
