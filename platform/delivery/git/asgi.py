"""git's smart HTTP protocol as an ASGI application of its own: nothing is buffered, either way.

``/git/<tenant>/<project>.git/info/refs``, ``git-upload-pack``, ``git-receive-pack``. The password of
basic authentication is a token; it is checked before a byte of the body is read.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import logging
import re
import zlib
from pathlib import Path
from urllib.parse import parse_qs

from controlplane.errors import CytoplaneError
from dataplane.planes import polling
from delivery.git import repository
from delivery.git.hook_server import HookServer
from delivery.git.pushes import Received
from projects.models import Project
from projects.queries import get_project
from tenants import tokens
from tenants.policy import Actor, actor_for

log = logging.getLogger("cytoplane.git")
_ADDRESS = re.compile(
    r"^/git/([a-z0-9-]+)/([a-z0-9-]+?)(?:\.git)?/(info/refs|git-upload-pack|git-receive-pack)$"
)
_SERVICES = {"git-upload-pack": "read", "git-receive-pack": "push"}
_CHUNK = 64 * 1024


class GitApplication:
    """One for each process: it owns the hooks' socket."""

    def __init__(self) -> None:
        self._hooks: HookServer | None = None
        #: Pushes whose client went away are carried to their end.
        self._running: set[asyncio.Task] = set()

    async def __call__(self, scope, receive, send) -> None:  # type: ignore[no-untyped-def]
        headers = {name.decode().lower(): value.decode("latin-1") for name, value in scope["headers"]}
        try:
            match = _ADDRESS.match(scope["path"])
            if match is None:
                raise CytoplaneError("not-found", kind="repository")
            tenant, project, verb = match.groups()
            query = parse_qs(scope["query_string"].decode())
            service = query.get("service", [""])[0] if verb == "info/refs" else verb
            wanted_method = "GET" if verb == "info/refs" else "POST"
            if service not in _SERVICES or scope["method"] != wanted_method:
                raise CytoplaneError("not-found", kind="repository")
            actor, row, path = await polling.query(
                _authorise, headers.get("authorization", ""), tenant, project, _SERVICES[service]
            )
        except CytoplaneError as error:
            await _refuse(send, error)
            return
        if verb == "info/refs":
            await self._advertise(send, path, service, headers)
            return
        await self._serve(receive, send, path, service, headers, actor, row)

    async def _advertise(self, send, path: Path, service: str, headers: dict[str, str]) -> None:  # type: ignore[no-untyped-def]
        process = await asyncio.create_subprocess_exec(
            *_command(service, path, "--advertise-refs"),
            env=repository.environment(**_protocol(headers)),
            stdout=asyncio.subprocess.PIPE,
        )
        output, _ = await process.communicate()
        banner = f"# service={service}\n"
        head = f"{len(banner) + 4:04x}{banner}0000".encode()
        await _start(send, f"application/x-{service}-advertisement")
        await send({"type": "http.response.body", "body": head + output})

    async def _serve(  # type: ignore[no-untyped-def]
        self, receive, send, path: Path, service: str, headers: dict[str, str], actor: Actor, project: Project
    ) -> None:
        more = _protocol(headers)
        capability = ""
        if service == "git-receive-pack":
            self._hooks = self._hooks or HookServer()
            capability = await self._hooks.expect(Received(actor=actor, project=project))
            more |= {
                "CYTOPLANE_HOOK_SOCKET": str(self._hooks.path),
                "CYTOPLANE_HOOK_CAPABILITY": capability,
            }
        process = await asyncio.create_subprocess_exec(
            *_command(service, path),
            env=repository.environment(**more),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        feeding = asyncio.create_task(_feed(receive, process, headers.get("content-encoding") == "gzip"))
        answering = asyncio.create_task(_answer(send, process, service))
        self._running.add(answering)
        answering.add_done_callback(self._running.discard)
        try:
            # Shielded: a client that hangs up must not end a push that is being decided.
            await asyncio.shield(answering)
        except ConnectionAbortedError as error:
            log.warning("%s: %s", path.name, error)
            raise
        finally:
            feeding.cancel()
            if self._hooks and capability and answering.done():
                self._hooks.forget(capability)


def _authorise(header: str, tenant: str, project: str, action: str) -> tuple[Actor, Project, Path]:
    scheme, _, encoded = header.partition(" ")
    if scheme.lower() != "basic":
        raise CytoplaneError("not-signed-in")
    try:
        _, _, secret = base64.b64decode(encoded, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        raise CytoplaneError("token-invalid")
    token = tokens.resolve(secret)
    actor = actor_for(token.user, token)
    row = get_project(actor, tenant, project, action)
    return actor, row, repository.repository_of(row)


def _command(service: str, path: Path, *more: str) -> list[str]:
    limit = f"--data={repository.MEMORY}"
    return ["prlimit", limit, "git", service.removeprefix("git-"), "--stateless-rpc", *more, str(path)]


def _protocol(headers: dict[str, str]) -> dict[str, str]:
    """git's protocol version, if it is one that we know."""
    wanted = headers.get("git-protocol", "")
    return {"GIT_PROTOCOL": wanted} if wanted in ("version=1", "version=2") else {}


async def _start(send, content_type: str, status: int = 200, more: list | None = None) -> None:  # type: ignore[no-untyped-def]
    headers = [(b"content-type", content_type.encode()), (b"cache-control", b"no-store"), *(more or [])]
    await send({"type": "http.response.start", "status": status, "headers": headers})


async def _refuse(send, error: CytoplaneError) -> None:  # type: ignore[no-untyped-def]
    more = [(b"www-authenticate", b'Basic realm="Cytoplane: any name, a token as password"')]
    await _start(send, "text/plain; charset=utf-8", error.status, more if error.status == 401 else None)
    text = f"{error.message}\nerror id: {error.code}\nNext: {error.next}\n"
    await send({"type": "http.response.body", "body": text.encode()})


async def _feed(receive, process: asyncio.subprocess.Process, compressed: bool) -> None:  # type: ignore[no-untyped-def]
    """The request's body into git, unpacked in bounded steps."""
    assert process.stdin is not None
    unpack = zlib.decompressobj(zlib.MAX_WBITS | 16) if compressed else None
    total = 0
    with contextlib.suppress(ConnectionError, zlib.error):
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                break
            data = message.get("body", b"")
            if unpack:
                pending = data
                while pending:
                    piece = unpack.decompress(pending, _CHUNK)
                    pending = unpack.unconsumed_tail
                    total += len(piece)
                    process.stdin.write(piece)
                    await process.stdin.drain()
            else:
                total += len(data)
                process.stdin.write(data)
                await process.stdin.drain()
            if total > repository.LARGEST_PUSH + 2**20 or not message.get("more_body"):
                break
    with contextlib.suppress(ConnectionError):
        process.stdin.close()


async def _answer(send, process: asyncio.subprocess.Process, service: str) -> None:  # type: ignore[no-untyped-def]
    """git's output to the client for as long as there is one."""
    assert process.stdout is not None
    attached = True

    async def pass_on(message: dict) -> None:
        nonlocal attached
        if attached:
            try:
                await send(message)
            except Exception:  # whatever the server raises for a closed connection
                attached = False

    await pass_on(
        {
            "type": "http.response.start",
            "status": 200,
            "headers": [
                (b"content-type", f"application/x-{service}-result".encode()),
                (b"cache-control", b"no-store"),
            ],
        }
    )
    while data := await process.stdout.read(_CHUNK):
        await pass_on({"type": "http.response.body", "body": data, "more_body": True})
    if await process.wait():
        # A git client waits for ever on an answer that ends well but says too little: hang up instead.
        raise ConnectionAbortedError(f"{service} ended with {process.returncode}")
    await pass_on({"type": "http.response.body", "body": b""})
