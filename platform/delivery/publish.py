"""Waking those who wait, and how addresses are written for people."""

from __future__ import annotations

import logging

import redis
from django.conf import settings
from django.db import transaction

log = logging.getLogger("cytoplane.delivery")
BUILDS = "builds"


def wake_builders() -> None:
    """Tell waiting builders, once the transaction is committed, that there is something to build."""
    transaction.on_commit(lambda: _publish(BUILDS, "1"))


def _publish(channel: str, text: str) -> None:
    try:
        redis.Redis.from_url(settings.REDIS_URL).publish(channel, text)
    except redis.RedisError:
        log.warning("Redis is away; what waits on %s looks by itself in a moment", channel)


def address(host: str) -> str:
    """The URL under which people reach a host of the platform."""
    port = settings.CONFIG.apps_port
    return f"http://{host}/" if port == 80 else f"http://{host}:{port}/"
