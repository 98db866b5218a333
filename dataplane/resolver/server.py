"""DNS over UDP and TCP for workloads: sockets, and how much of them one asker gets."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import struct
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any

from dataplane.resolver import lessons, selfcheck
from dataplane.resolver.answers import Answers
from dataplane.resolver.denials import Denials
from dataplane.resolver.external import External
from dataplane.resolver.pace import Pace
from dataplane.resolver.replies import Query
from dataplane.resolver.table import Table
from dataplane.resolver.upstream import Upstream

log = logging.getLogger("cytoplane.resolver")
_TCP_IDLE = 10.0
REPORT_SECONDS = 1.0
#: Seconds between two checks of an asker; the program that makes them asks again after half a second.
_CHECK_SECONDS = 0.2
#: Connections in all and of one asker, which must not take all of them.
_MOST_TCP, _MOST_TCP_EACH = 256, 16


def answer(table: Table, asker: str, data: bytes, denials: Denials | None = None) -> bytes | None:
    """The response from the table alone; None to what isn't a query. Names in vain are noted."""
    found = Answers(table, denials).at_once(asker, data)
    assert not isinstance(found, Query)
    return found


class _Udp(asyncio.DatagramProtocol):
    def __init__(
        self, refresh: Callable[[], None], answers: Answers, pace: Pace, agent: lessons.Agent | None = None
    ) -> None:
        self._refresh, self._answers, self._pace, self._agent = refresh, answers, pace, agent
        self._tasks: set[asyncio.Task[None]] = set()
        #: Who is being checked, or was a moment ago: each check is the agent's time, which all share.
        self._checked: set[str] = set()

    def connection_made(self, transport) -> None:  # type: ignore[no-untyped-def]
        self._transport = transport

    def datagram_received(self, data: bytes, addr) -> None:  # type: ignore[no-untyped-def]
        if not self._pace.admits(addr[0]):
            return
        self._refresh()
        response = self._answers.at_once(addr[0], data)
        if isinstance(response, bytes):
            if selfcheck.answered(response):
                self._begin(self._check(response, addr))
            else:
                self._transport.sendto(response, addr)
        elif response is not None:
            self._begin(self._later(response, addr))

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _check(self, response: bytes, addr: tuple[str, int]) -> None:
        """The answer says that the packet which mustn't arrive was sent: without that there is none."""
        if self._agent is None or addr[0] in self._checked:
            return
        self._checked.add(addr[0])
        try:
            if await self._agent.uninvited(*selfcheck.uninvited(addr)):
                self._transport.sendto(response, addr)
        except lessons.Away:
            pass  # whoever is checked asks again
        finally:
            asyncio.get_running_loop().call_later(_CHECK_SECONDS, self._checked.discard, addr[0])

    async def _later(self, query: Query, addr) -> None:  # type: ignore[no-untyped-def]
        self._transport.sendto(await self._answers.later(addr[0], query), addr)


async def serve(
    table: Table,
    denials: Denials,
    addresses: list[str],
    port: int = 53,
    *,
    agent: lessons.Agent | None = None,
    upstream: Upstream | None = None,
) -> None:
    """Answer on all addresses until cancelled; names of the outside world with an ``agent`` only."""
    loop = asyncio.get_running_loop()
    connected: Counter[str] = Counter()
    upstream = upstream or Upstream()
    answers = Answers(table, denials, External(upstream, agent) if agent else None)
    pace = Pace()

    def refresh() -> None:
        table.refresh()
        upstream.servers = table.servers

    async def tcp(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asker = writer.get_extra_info("peername")[0]
        if connected.total() >= _MOST_TCP or connected[asker] >= _MOST_TCP_EACH:
            writer.close()
            return
        connected[asker] += 1
        try:
            with contextlib.suppress(asyncio.IncompleteReadError, TimeoutError, OSError):
                while True:
                    size = await asyncio.wait_for(reader.readexactly(2), _TCP_IDLE)
                    data = await asyncio.wait_for(reader.readexactly(int.from_bytes(size)), _TCP_IDLE)
                    if not pace.admits(asker):
                        break
                    refresh()
                    response = answers.at_once(asker, data, tcp=True)
                    if isinstance(response, Query):
                        response = await answers.later(asker, response, tcp=True)
                    if response is None:
                        break
                    writer.write(struct.pack("!H", len(response)) + response)
                    await asyncio.wait_for(writer.drain(), _TCP_IDLE)
        finally:
            connected[asker] -= 1
            if not connected[asker]:
                del connected[asker]
            writer.close()

    for address in addresses:
        # The next version listens beside this one for a moment.
        await loop.create_datagram_endpoint(
            lambda: _Udp(refresh, answers, pace, agent), local_addr=(address, port), reuse_port=True
        )
        await asyncio.start_server(tcp, address, port, reuse_port=True)
    while True:
        refresh()
        pace.tidy()
        denials.send()
        if agent is not None:
            await agent.report(_problem(upstream))
        await asyncio.sleep(REPORT_SECONDS)


def _problem(upstream: Upstream) -> str:
    """What is wrong with the servers, "" if the last question was answered or nobody has asked for long."""
    recent = time.monotonic() - upstream.failed_at < 60
    if upstream.failed_at > upstream.answered_at and recent:
        return f"no answer from upstream DNS servers ({', '.join(upstream.servers)})"
    return ""
