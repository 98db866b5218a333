"""Names of the outside world for who declared them: asked for upstream, opened by the agent, then answered."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from dataclasses import dataclass, replace

from dataplane.resolver import lessons
from dataplane.resolver.cache import Cache, Key, Known
from dataplane.resolver.lookups import Chain, Found
from dataplane.resolver.upstream import BROKEN, NoAnswer, Upstream

log = logging.getLogger("cytoplane.resolver")
#: Questions on their way, of one asker and in all.
MOST_EACH, MOST = 64, 1024
#: Answers of servers to one question, where they don't follow aliases themselves.
_MOST_ASKED = 6
#: Seconds that an old answer counts for while the agent is away, and a refusal of it.
_STALE_TTL, _REFUSED_TTL = 5, 5

# RFC 8914.
STALE, NOT_READY, BLOCKED, NO_UPSTREAM = 3, 14, 15, 22


@dataclass(frozen=True)
class Answer:
    """``found`` None: nothing can be said now. ``code`` and ``text`` are an extended error."""

    found: Found | None
    ttl: int = 0
    code: int = 0
    text: str = ""


class External:
    """One for a process."""

    def __init__(self, upstream: Upstream, agent: lessons.Agent) -> None:
        self._upstream, self._agent = upstream, agent
        self._cache = Cache()
        self._asking: dict[tuple[Key, int], asyncio.Task[Answer]] = {}
        self._waiting: Counter[int] = Counter()

    async def resolve(self, identity: int, name: str, kind: int, stamp: int = 0) -> Answer:
        """The answer for an asker who declared the name. Never raises for what others do.

        What was learned under another ``stamp`` than the asker has now doesn't count.
        """
        key = (identity, name, kind)
        known = self._cache.get(key)
        now = time.monotonic()
        if known is not None and known.expires > now and known.stamp == stamp:
            return _fresh(known, now)
        if self._waiting[identity] >= MOST_EACH or self._waiting.total() >= MOST:
            return Answer(None, code=NOT_READY, text="too many questions at once")
        self._waiting[identity] += 1
        try:
            asking = (key, stamp)
            task = self._asking.get(asking)
            if task is None:
                task = asyncio.create_task(self._look_up(key, stamp))
                self._asking[asking] = task
                task.add_done_callback(lambda _: self._asking.pop(asking, None))
            return await asyncio.shield(task)
        finally:
            self._waiting[identity] -= 1
            if not self._waiting[identity]:
                del self._waiting[identity]

    async def _look_up(self, key: Key, stamp: int) -> Answer:
        identity, name, kind = key
        try:
            found = await self._chase(name, kind)
        except NoAnswer as error:
            log.warning("%s isn't answered upstream: %s", name, error)
            return Answer(None, code=NO_UPSTREAM, text="no upstream server answers")
        if not found.addresses:
            return self._keep(key, found, found.ttl, stamp)
        try:
            lesson = await self._agent.learn(identity, name, found.addresses, found.ttl)
        except lessons.Away:
            return self._without_agent(key, stamp)
        if lesson.refusal:
            return Answer(None, code=BLOCKED, text=lesson.refusal)
        if not lesson.addresses:
            nothing = Found((), (), _REFUSED_TTL)
            self._keep(key, nothing, _REFUSED_TTL, stamp)
            return Answer(nothing, _REFUSED_TTL, BLOCKED, "it leads to addresses that no tenant can open")
        # From here on the kernel lets the asker through.
        return self._keep(key, replace(found, addresses=lesson.addresses), lesson.ttl, stamp)

    async def _chase(self, name: str, kind: int) -> Found:
        chain = Chain(name, kind)
        for _ in range(_MOST_ASKED):
            record = await self._upstream.ask(chain.last, kind)
            try:
                found = chain.take(record)
            except BROKEN:
                raise NoAnswer("the answer is damaged") from None
            if found is not None:
                return found
        raise NoAnswer("its aliases don't end")

    def _keep(self, key: Key, found: Found, ttl: int, stamp: int) -> Answer:
        self._cache.put(key, Known(found, time.monotonic() + ttl, stamp))
        return Answer(found, ttl)

    def _without_agent(self, key: Key, stamp: int) -> Answer:
        """What this asker has already: it stays open for as long as the agent is away."""
        known = self._cache.get(key)
        if (
            known is not None
            and known.found.addresses
            and known.stamp == stamp
            and known.expires + lessons.GRACE / 2 > self._agent.seen_at
        ):
            return Answer(known.found, _STALE_TTL, STALE, "the node's agent is away")
        return Answer(None, code=NOT_READY, text="the node's agent is away")


def _fresh(known: Known, now: float) -> Answer:
    return Answer(known.found, max(1, int(known.expires - now)))
