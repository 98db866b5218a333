"""The web process's side of the pre-receive hook: one connection for each push."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import secrets
from pathlib import Path

from django.conf import settings

from controlplane.errors import CytoplaneError
from dataplane.planes import polling
from delivery.git import pushes
from delivery.git.pushes import Received

log = logging.getLogger("cytoplane.git")
POLL = 0.1
LONGEST = 30 * 60


class HookServer:
    """Listens on a socket in a folder that only this user opens. Started with the first push."""

    def __init__(self) -> None:
        self._received: dict[str, Received] = {}
        self._server: asyncio.Server | None = None
        self._lock = asyncio.Lock()
        self.path: Path = settings.CONFIG.run / "web" / "hooks.sock"

    async def expect(self, received: Received) -> str:
        """A capability with which this push's hook, and no other, speaks for it."""
        async with self._lock:
            if self._server is None:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                self.path.unlink(missing_ok=True)
                self._server = await asyncio.start_unix_server(self._serve, str(self.path))
                self.path.chmod(0o600)
        capability = secrets.token_urlsafe(24)
        self._received[capability] = received
        return capability

    def forget(self, capability: str) -> None:
        self._received.pop(capability, None)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async def send(message: dict) -> None:
            # A hook whose client is gone may be gone too; the deployment doesn't depend on it.
            with contextlib.suppress(OSError):
                writer.write(json.dumps(message).encode() + b"\n")
                await writer.drain()

        try:
            request = json.loads(await reader.readline())
            received = self._received.pop(request.get("capability", ""), None)
            if received is None:
                await send({"text": "This push isn't known.\n"})
                await send({"verdict": "decline"})
                return
            await send({"verdict": await self._decide(received, request, send)})
        except CytoplaneError as error:
            await send(
                {
                    "text": f" !     {error.message}\n       error id: {error.code}\n       Next: {error.next}\n"
                }
            )
            await send({"verdict": "decline"})
        except Exception:
            log.exception("a push failed")
            await send({"text": " !     Something failed on our side; nothing was changed. Push again.\n"})
            await send({"verdict": "decline"})
        finally:
            writer.close()

    async def _decide(self, received: Received, request: dict, send) -> str:  # type: ignore[no-untyped-def]
        await polling.query(
            pushes.begin,
            received,
            request["updates"],
            request["objects"],
            request["alternates"],
            request.get("options", []),
        )
        for message in received.messages:
            await send({"text": message})
        if received.deployment is None:
            return "accept"
        for _ in range(int(LONGEST / POLL)):
            text, verdict = await polling.query(pushes.follow, received)
            if text:
                await send({"text": text})
            if verdict:
                return verdict
            await asyncio.sleep(POLL)
        return "decline"
