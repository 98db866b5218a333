"""What nodes report of replicas' load. Kept in Redis for as long as it may be believed: what is lost is missing.

Reports are untrusted: a node speaks for replicas of its own plane only, and figures are cut to what can be.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import redis
from django.conf import settings

from dataplane.planes.models import Plane
from delivery.models import Replica
from delivery.queries import replica_number

log = logging.getLogger("cytoplane.autoscaling")
#: Seconds for which a report counts. Nodes report every ten.
FRESH = 30
#: Cores and requests a second that no replica has more of.
MOST_CPU, MOST_REQUESTS = 1024.0, 1_000_000.0


@dataclass(frozen=True)
class Figures:
    """Cores that a replica used and requests a second that it got; None: not known."""

    cpu: float | None = None
    requests: float | None = None


def _key(replica: int) -> str:
    return f"cytoplane:load:{replica}"


def _figure(value: Any, most: float) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if not math.isfinite(value) or value < 0:
        return None
    return min(float(value), most)


def record(plane: Plane, reports: list[dict[str, Any]]) -> int:
    """Keep what a node says of replicas of its own plane; how many it was."""
    said = {number: report for report in reports if (number := replica_number(report.get("id")))}
    if not said:
        return 0
    own = list(Replica.objects.filter(pk__in=said, plane=plane).values_list("pk", flat=True))
    try:
        with redis.Redis.from_url(settings.REDIS_URL) as client, client.pipeline(transaction=False) as pipe:
            for number in own:
                found = {
                    "cpu": _figure(said[number].get("cpu"), MOST_CPU),
                    "requests": _figure(said[number].get("requests"), MOST_REQUESTS),
                }
                pipe.set(_key(number), json.dumps(found), ex=FRESH)
            pipe.execute()
    except redis.RedisError:
        log.warning("Redis is away; the load of %s replicas isn't known", len(own))
        return 0
    return len(own)


def of(replicas: Iterable[int]) -> dict[int, Figures]:
    """Replica → what was reported of it lately. Nobody is left out: what isn't known is None."""
    numbers = list(replicas)
    if not numbers:
        return {}
    try:
        with redis.Redis.from_url(settings.REDIS_URL) as client:
            found = client.mget([_key(number) for number in numbers])
    except redis.RedisError:
        found = [None] * len(numbers)
    return {
        number: Figures(**json.loads(text)) if text else Figures()
        for number, text in zip(numbers, found, strict=True)
    }
