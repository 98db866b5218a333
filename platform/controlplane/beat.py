"""Periodic tasks are given out once, however many of these processes there are: by whoever holds the lease.

The lease is a key in Redis, which is the broker: without it nothing could be given out anyway. It may be
lost; two who give a task out at once do no harm, since every periodic task may run twice.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import time
from typing import Any

import redis
from celery.beat import PersistentScheduler
from django.conf import settings

from controlplane import alive

log = logging.getLogger("cytoplane.beat")
LEASE_KEY = "cytoplane:beat"
#: How long the lease outlives its holder's last word, and how often it is asked for.
LEASE_SECONDS, ASK_SECONDS = 15.0, 4.0
#: A clock that is kept right goes back by less.
SET_BACK_SECONDS = 1.0
#: Take, keep or leave, in one step. KEYS: the lease. ARGV: who, milliseconds.
_HOLD = """
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
"""
_RELEASE = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0"


class Lease:
    """One holder at a time. A holder is a host (a pod): who starts anew there goes on with what it held."""

    def __init__(self, holder: str = "", url: str = "") -> None:
        self._holder = holder or socket.gethostname()
        self._client = redis.Redis.from_url(url or settings.REDIS_URL, socket_timeout=3)

    def hold(self) -> bool | None:
        """Whether this process holds the lease now; None if Redis doesn't say."""
        try:
            return bool(self._client.eval(_HOLD, 1, LEASE_KEY, self._holder, int(LEASE_SECONDS * 1000)))
        except (redis.RedisError, OSError):
            return None

    def release(self) -> None:
        """Let the next one begin at once."""
        with contextlib.suppress(redis.RedisError, OSError):
            self._client.eval(_RELEASE, 1, LEASE_KEY, self._holder)


class LeasedScheduler(PersistentScheduler):
    """Celery's scheduler, which does nothing while somebody else does it."""

    def __init__(self, *args: Any, **options: Any) -> None:
        self._lease = Lease()
        self._held = False
        self._looked_at = time.time()
        super().__init__(*args, **options)

    def tick(self, *args: Any, **options: Any) -> float:
        """Give out one task that is due; seconds until the next look."""
        self._follow_clock()
        held = self._lease.hold()
        if held is not None:
            alive.touch("beat")
        if bool(held) != self._held:
            self._held = bool(held)
            log.warning("periodic tasks are given out %s", "here" if held else "elsewhere")
        if not held:
            return ASK_SECONDS
        return min(super().tick(*args, **options), ASK_SECONDS)

    def _follow_clock(self) -> None:
        """Where the clock was set back, begin anew: else nothing would be due until it is there again."""
        before, self._looked_at = self._looked_at, time.time()
        if self._looked_at < before - SET_BACK_SECONDS:
            log.warning("the clock was set back; periodic tasks are timed anew")
            for entry in self.schedule.values():
                entry.last_run_at = entry.default_now()
            self._heap = None

    def close(self) -> None:
        try:
            super().close()
        finally:
            self._lease.release()
