"""Passes the applications' port on this host's loopback addresses on to the north gateway.

What comes from outside is redirected by nftables; packets from 127.0.0.1 can't be routed to another
address, so the host's own browser goes through here.
"""

from __future__ import annotations

import asyncio
import contextlib

from dataplane import addresses
from infra import config as installation

_CHUNK = 64 * 1024


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(_CHUNK):
            writer.write(data)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()


async def _serve() -> None:
    config = installation.load()
    target = addresses.workload(config, addresses.GATEWAY_NORTH).v4

    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            upstream = await asyncio.wait_for(
                asyncio.open_connection(target, addresses.NORTH_HTTP_PORT), timeout=5
            )
        except (OSError, TimeoutError):
            writer.close()
            return
        try:
            await asyncio.gather(_copy(reader, upstream[1]), _copy(upstream[0], writer))
        finally:
            upstream[1].close()
            writer.close()

    servers = [await asyncio.start_server(client, "127.0.0.1", config.apps_port, backlog=512)]
    with contextlib.suppress(OSError):
        servers.append(await asyncio.start_server(client, "::1", config.apps_port, backlog=512))
    await asyncio.gather(*(server.serve_forever() for server in servers))


if __name__ == "__main__":
    import uvloop

    uvloop.run(_serve())
