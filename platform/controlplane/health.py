"""Whether this process lives, and whether it could do its work."""

from __future__ import annotations

import redis
from django.conf import settings
from django.db import connection
from django.db.migrations.executor import MigrationExecutor
from django.http import HttpRequest, JsonResponse


def alive(request: HttpRequest) -> JsonResponse:
    """The process answers."""
    return JsonResponse({"ok": True})


class _Migrations:
    """Whether the database has everything that this code expects. Once it has, it isn't asked again."""

    def __init__(self) -> None:
        self._applied = False

    def missing(self) -> int:
        """Migrations that aren't applied yet. Raises the database's errors."""
        if not self._applied:
            executor = MigrationExecutor(connection)
            plan = executor.migration_plan(executor.loader.graph.leaf_nodes())
            self._applied = not plan
            return len(plan)
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
        return 0


_migrations = _Migrations()


def problems() -> dict[str, str]:
    """What is missing for work to be done, by part."""
    found = {}
    try:
        if missing := _migrations.missing():
            found["migrations"] = f"{missing} not applied"
    except Exception as error:  # whatever it is, the part isn't usable
        found["postgres"] = type(error).__name__
    try:
        redis.Redis.from_url(settings.REDIS_URL, socket_timeout=2).ping()
    except (redis.RedisError, OSError) as error:
        found["redis"] = type(error).__name__
    return found


def ready(request: HttpRequest) -> JsonResponse:
    """Database and Redis answer, migrations are applied; 503 names what is missing."""
    found = problems()
    return JsonResponse({"ok": not found, "problems": found}, status=503 if found else 200)
