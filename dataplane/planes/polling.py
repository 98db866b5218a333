"""Long polls: an answer as soon as there is one, without holding a database connection meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import redis.asyncio
from asgiref.sync import sync_to_async
from django.conf import settings
from django.db import connections

from controlplane.errors import CytoplaneError

T = TypeVar("T")
#: Seconds after which the database is looked at without having been woken.
_UNWOKEN, _WITHOUT_REDIS = 2.0, 1.0
#: Polls of one node at once: an agent has two, a builder one for each build.
MOST_OPEN = 32
_open: Counter[int] = Counter()


@contextlib.contextmanager
def seat(node_id: int, name: str) -> Iterator[None]:
    """Room for one more poll of a node in this process. Raises `conflict`: the room is everybody's."""
    if _open[node_id] >= MOST_OPEN:
        raise CytoplaneError("conflict", message=f"{MOST_OPEN} polls of {name} are open, which is the most.")
    _open[node_id] += 1
    try:
        yield
    finally:
        _open[node_id] -= 1
        if not _open[node_id]:
            del _open[node_id]


async def query(function: Callable[..., T], *arguments: Any, **named: Any) -> T:
    """Run a query in a thread and give its connection back."""

    def returning() -> T:
        try:
            return function(*arguments, **named)
        finally:
            connections.close_all()

    return await sync_to_async(returning, thread_sensitive=False)()


async def answer(
    channel: str,
    seconds: float,
    function: Callable[..., T | None],
    *arguments: Any,
    unwoken: float = _UNWOKEN,
) -> T | None:
    """What ``function`` gives once it isn't None; None when ``seconds`` are over.

    A message on ``channel`` shortens the wait. Redis does no more than that: without it the database is
    looked at now and then. ``unwoken``: seconds after which it is looked at without a message.
    """
    until = time.monotonic() + seconds
    client = redis.asyncio.Redis.from_url(settings.REDIS_URL)
    wake = client.pubsub()
    try:
        with contextlib.suppress(redis.RedisError):
            await wake.subscribe(channel)
        while True:
            found = await query(function, *arguments)
            left = until - time.monotonic()
            if found is not None or left <= 0:
                return found
            try:
                await wake.get_message(ignore_subscribe_messages=True, timeout=min(left, unwoken))
            except redis.RedisError:
                await asyncio.sleep(min(left, _WITHOUT_REDIS))
    finally:
        with contextlib.suppress(redis.RedisError):
            await wake.aclose()
        with contextlib.suppress(redis.RedisError):
            await client.aclose()
