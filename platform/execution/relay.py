"""What people and processes of a session say to each other, on its way through Redis.

Two streams with a bounded number of pieces each, which the reader takes away as it asks for the next ones:
whoever writes faster than the other reads has to wait. Nothing here outlives a session by more than
``KEPT_SECONDS``, and nothing is needed to know how it ended.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import Any

import redis
import redis.asyncio
from django.conf import settings

#: Of one direction: pieces that wait for the reader, and bytes of one. All of a session is less than 1.1 MiB.
MOST_PIECES, LARGEST_PIECE = 12, 32 * 1024
#: Keys of a session that nobody asks about any more.
KEPT_SECONDS = 120
#: So long one side may say nothing before it counts as gone.
SILENCE_SECONDS = 20
#: And so long after its connection was seen to end: it may come again.
LEAVING_SECONDS = 4
INPUT, OUTPUT = "in", "out"
#: The writer of each stream, and the reader of it.
CLIENT, AGENT = "client", "agent"
_READER = {INPUT: AGENT, OUTPUT: CLIENT}
_AT_ONCE = 8


def channel(plane_id: int) -> str:
    """Redis channel that tells agents of a plane that somebody waits."""
    return f"cytoplane:sessions:{plane_id}"


def _key(session: int, what: str) -> str:
    return f"cytoplane:session:{session}:{what}"


def connection() -> redis.Redis:
    return redis.Redis.from_url(settings.REDIS_URL, socket_timeout=5)


@dataclass(frozen=True)
class Pieces:
    """What a reader gets: the pieces, and the number of the last one, to be named when asking on.

    ``over``: nothing comes behind them.
    """

    last: int
    pieces: list[dict[str, Any]]
    over: bool = False


def begin(client: redis.Redis, session: int, command: list[str], size: tuple[int, int]) -> None:
    """Keep the command for the agent that takes the session. It is never anywhere else."""
    document = json.dumps({"command": command, "size": size})
    client.set(_key(session, "command"), document, ex=KEPT_SECONDS)
    client.set(_key(session, CLIENT), "1", ex=SILENCE_SECONDS)
    client.set(_key(session, "moved"), str(time.time()), ex=KEPT_SECONDS)


def announce(client: redis.Redis, plane_id: int, session: int) -> None:
    client.publish(channel(plane_id), session)


def take(client: redis.Redis, session: int) -> dict[str, Any] | None:
    """Command and size, once; None if it isn't kept any more."""
    kept = client.getdel(_key(session, "command"))
    return None if kept is None else json.loads(kept)


def push(client: redis.Redis, session: int, stream: str, number: int, piece: dict[str, Any]) -> bool:
    """Put in the piece with this number; False: there is no room yet. A piece that is sent again counts once.

    Raises ``redis.RedisError``.
    """
    key = _key(session, stream)
    if client.xlen(key) >= MOST_PIECES:
        return False
    try:
        client.xadd(key, {"piece": json.dumps(piece)}, id=f"{number}-1")
    except redis.ResponseError as error:
        if "equal or smaller" not in str(error):
            raise  # Redis has no memory left, for example: it isn't there.
        return True  # It is there already, or was read.
    client.expire(key, KEPT_SECONDS)
    client.set(_key(session, "moved"), str(time.time()), ex=KEPT_SECONDS)
    return True


def present(client: redis.Redis, session: int, who: str) -> None:
    """Note that this side is there, and keep what there is of the session."""
    client.set(_key(session, who), "1", ex=SILENCE_SECONDS)
    for what in (INPUT, OUTPUT, "moved"):
        client.expire(_key(session, what), KEPT_SECONDS)


async def leaving(session: int, who: str) -> None:
    """The connection of this side has ended."""
    client = redis.asyncio.Redis.from_url(settings.REDIS_URL, socket_timeout=5)
    try:
        await client.expire(_key(session, who), LEAVING_SECONDS)
    finally:
        await client.aclose()


def gone(client: redis.Redis, session: int, who: str) -> bool:
    return not client.exists(_key(session, who))


def still_for(client: redis.Redis, session: int) -> float | None:
    """Seconds since anything was said; None if Redis has forgotten the session."""
    moved = client.get(_key(session, "moved"))
    return None if moved is None else max(0.0, time.time() - float(moved))


def end(client: redis.Redis, session: int) -> None:
    """Wake both readers: the row says how it ended. What was printed before it can still be read."""
    with client.pipeline() as all_at_once:
        all_at_once.delete(_key(session, "command"), _key(session, INPUT))
        for stream in (INPUT, OUTPUT):
            all_at_once.xadd(_key(session, stream), {"piece": json.dumps({"over": True})})
            all_at_once.expire(_key(session, stream), KEPT_SECONDS)
        all_at_once.execute()


def keep(client: redis.Redis, session: int, *, longer: bool) -> bool:
    """Whether what one that has ended printed is there. ``longer``: keep it for another while."""
    key = _key(session, OUTPUT)
    return bool(client.expire(key, KEPT_SECONDS) if longer else client.exists(key))


def unread(client: redis.Redis, sessions: list[int]) -> int:
    """How many of these, which have ended, have printed what nobody has read yet."""
    with client.pipeline(transaction=False) as questions:
        for session in sessions:
            questions.xlen(_key(session, OUTPUT))
        # The end itself is one of them.
        return sum(length > 1 for length in questions.execute())


async def pull(session: int, stream: str, after: int, seconds: float) -> Pieces:
    """Pieces behind ``after`` as soon as there are any, none after ``seconds``; those up to it are taken away.

    Raises ``redis.RedisError``.
    """
    key = _key(session, stream)
    client = redis.asyncio.Redis.from_url(settings.REDIS_URL, socket_timeout=seconds + 5)
    try:
        await client.set(_key(session, _READER[stream]), "1", ex=SILENCE_SECONDS)
        if after:
            await client.xtrim(key, minid=f"{after}-2", approximate=False)
        block = max(1, int(seconds * 1000))
        # The library's types cover every protocol that a server may speak.
        answer: Any = await client.xread({key: f"{after}-1"}, count=_AT_ONCE, block=block)
    finally:
        await client.aclose()
    rows = answer[0][1] if answer else []
    pieces = [json.loads(fields[b"piece"]) for _, fields in rows]
    numbers = [
        int(name.split(b"-")[0]) for (name, _), piece in zip(rows, pieces, strict=True) if "over" not in piece
    ]
    said = [piece for piece in pieces if "over" not in piece]
    return Pieces(numbers[-1] if numbers else after, said, over=len(said) < len(pieces))
