"""The resolver's side of what it tells the agent: who asked for which name and what the answer is.

The agent opens the way and says so; only then the asker gets the answer. Both sides bound their patience.
"""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

#: Seconds for a question to the agent.
PATIENCE = 1.5
LARGEST = 64 * 1024
#: Seconds for which an address stays open after its answer has ended, for who is slow to connect.
GRACE = 120


def path_in(folder: Path) -> Path:
    """The agent's socket in the resolver's folder."""
    return folder / "lessons.sock"


class Away(Exception):
    """The agent doesn't answer."""


@dataclass(frozen=True)
class Lesson:
    """What the agent made of an answer: addresses that are open now, for ``ttl`` seconds, or why none is."""

    addresses: tuple[str, ...]
    ttl: int
    refusal: str = ""


class Agent:
    """Asks the agent; remembers when it was there."""

    def __init__(self, path: Path) -> None:
        self._path = path
        #: Monotonic; while the agent is away nothing of what it opened is closed.
        self.seen_at = 0.0

    async def learn(self, identity: int, name: str, addresses: tuple[str, ...], ttl: int) -> Lesson:
        """Open the way. Raises ``Away``."""
        answer = await self._ask(
            {"identity": identity, "name": name, "addresses": list(addresses), "ttl": ttl}
        )
        try:
            admitted = tuple(str(a) for a in answer["addresses"] if a in addresses)
            return Lesson(admitted, int(answer["ttl"]), str(answer.get("refusal", "")))
        except (KeyError, TypeError, ValueError):
            raise Away from None

    async def uninvited(self, address: str, port: int) -> bool:
        """Have the node send a datagram that nobody asked for; whether it has. Raises ``Away``."""
        return (await self._ask({"uninvited": [address, port]})).get("sent") is True

    async def report(self, problem: str) -> bool:
        """Say how it goes; whether the agent is there."""
        try:
            await self._ask({"problem": problem})
        except Away:
            return False
        return True

    async def _ask(self, question: dict[str, Any]) -> dict[str, Any]:
        try:
            async with asyncio.timeout(PATIENCE):
                reader, writer = await asyncio.open_unix_connection(str(self._path), limit=LARGEST)
                try:
                    writer.write(json.dumps(question).encode() + b"\n")
                    line = await reader.readline()
                finally:
                    writer.close()
            answer = json.loads(line)
        except (OSError, TimeoutError, ValueError, RecursionError):
            raise Away from None
        if not isinstance(answer, dict):
            raise Away
        self.seen_at = time.monotonic()
        return answer
