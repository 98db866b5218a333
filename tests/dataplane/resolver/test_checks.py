"""The self-check of a pod, asked for by whoever likes: the agent answers one question at a time."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from dnslib import DNSRecord

from dataplane.resolver import selfcheck, server
from dataplane.resolver.answers import Answers
from dataplane.resolver.pace import Pace
from dataplane.resolver.table import Table, _Content


class Agent:
    """Counts what it is asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def uninvited(self, address: str, port: int) -> bool:
        self.asked.append(address)
        return True


class Transport:
    def __init__(self) -> None:
        self.sent: list[str] = []

    def sendto(self, data: bytes, addr: tuple[str, int]) -> None:
        self.sent.append(addr[0])


def test_an_asker_has_one_check_in_a_moment_and_nobody_else_waits_for_it() -> None:
    table = Table(Path("/nonexistent"))
    table._content = _Content({"10.64.0.5": "300", "10.64.0.6": "301"})
    agent, transport = Agent(), Transport()
    query = DNSRecord.question(selfcheck.NAME).pack()

    async def work() -> None:
        protocol: Any = server._Udp(lambda: None, Answers(table), Pace(), agent)  # type: ignore[arg-type]
        protocol.connection_made(transport)
        for _ in range(5):
            protocol.datagram_received(query, ("10.64.0.5", 4000))
            await asyncio.sleep(0.01)
        protocol.datagram_received(query, ("10.64.0.6", 4000))
        await asyncio.sleep(server._CHECK_SECONDS + 0.1)
        protocol.datagram_received(query, ("10.64.0.5", 4000))
        await asyncio.sleep(0.01)

    asyncio.run(work())
    assert agent.asked == transport.sent == ["10.64.0.5", "10.64.0.6", "10.64.0.5"]
