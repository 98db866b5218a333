"""Whether this process lives, and whether it could do its work."""

from __future__ import annotations

import redis
from django.conf import settings
from django.db import connection
from django.http import HttpRequest, JsonResponse


def alive(request: HttpRequest) -> JsonResponse:
    """The process answers."""
    return JsonResponse({"ok": True})


def problems() -> dict[str, str]:
    """What is missing for work to be done, by part."""
    found = {}
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1 FROM django_migrations LIMIT 1")
    except Exception as error:  # whatever it is, the part isn't usable
        found["postgres"] = type(error).__name__
    try:
        redis.Redis.from_url(settings.REDIS_URL, socket_timeout=2).ping()
    except (redis.RedisError, OSError) as error:
        found["redis"] = type(error).__name__
    return found


def ready(request: HttpRequest) -> JsonResponse:
    """Database and Redis answer; 503 names what doesn't."""
    found = problems()
    return JsonResponse({"ok": not found, "problems": found}, status=503 if found else 200)
