"""The ASGI application: who asks, whether the cell may have it, and handing on what the registry says.

Reading only. A cell gets the manifests that desired state has for it and what these name, nothing else: a
piece of another's image is answered like one that doesn't exist.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Awaitable, Callable
from typing import Any

from dataplane.registry import names
from dataplane.registry.grants import Cell, Grants
from dataplane.registry.local import Local, Piece
from dataplane.registry.upstream import Away, Missing, Upstream

Send = Callable[[dict[str, Any]], Awaitable[None]]
#: Handed on from the caller and back. Nothing else: no cookies, no credentials, no addresses.
_ASKED = ("accept", "range", "if-range", "if-none-match")
_ANSWERED = (
    "content-type", "content-length", "content-range", "accept-ranges", "docker-content-digest", "etag",
)  # fmt: skip
_VERSION = (b"docker-distribution-api-version", b"registry/2.0")


class Answer(Exception):
    """An answer without a body of the registry's."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code = status, code


class Proxy:
    def __init__(self, grants: Grants, upstream: Upstream, local: Local) -> None:
        self._grants, self._upstream, self._local = grants, upstream, local

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Send) -> None:
        if scope["type"] != "http":
            return
        try:
            await self._answer(scope, send)
        except Answer as answer:
            await _refuse(send, scope["method"], answer)

    async def _answer(self, scope: dict[str, Any], send: Send) -> None:
        method, path = scope["method"], scope["path"]
        if method not in ("GET", "HEAD"):
            raise Answer(405, "UNSUPPORTED", "Images are only read here.")
        if path == "/healthz":
            return await self._health(send, method)
        asked = names.asked(path)
        if asked is not None and (piece := self._local.piece(asked)) is not None:
            return await _give(send, method, piece)
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        cell = self._caller(headers.get("authorization", ""))
        if path in ("/v2", "/v2/"):
            return await _reply(send, method, 200, b"{}")
        if asked is None or not await self._may(cell, asked):
            raise Answer(404, "NAME_UNKNOWN", "There is no such image.")
        return await self._pass(send, method, path, headers)

    async def _health(self, send: Send, method: str) -> None:
        """Ready to serve whom desired state names: there is some, and a certificate."""
        if not self._grants.refresh() or not self._upstream.ready:
            raise Answer(503, "UNAVAILABLE", "The agent of this node hasn't got a desired state yet.")
        await _reply(send, method, 200, b"{}")

    def _caller(self, authorization: str) -> Cell:
        """The cell whose secret it is. Raises ``Answer``."""
        self._grants.refresh()
        scheme, _, value = authorization.partition(" ")
        try:
            pair = base64.b64decode(value, validate=True).decode() if scheme.lower() == "basic" else ""
        except (binascii.Error, UnicodeDecodeError):
            pair = ""
        namespace, _, token = pair.partition(":")
        cell = self._grants.cell(namespace, token)
        if cell is None:
            raise Answer(401, "UNAUTHORIZED", "The pull secret isn't one of this plane's cells.")
        return cell

    async def _may(self, cell: Cell, asked: names.Asked) -> bool:
        digests = cell.images.get(asked.repository, frozenset())
        if asked.kind == "manifests":
            return asked.reference in digests
        away: Away | None = None
        for digest in digests:
            try:
                if asked.reference in await self._upstream.layers(asked.repository, digest):
                    return True
            except Missing:
                continue
            except Away as error:
                away = error
        if away is not None:
            raise Answer(503, "UNAVAILABLE", f"{str(away)[:1].upper()}{str(away)[1:]}.")
        return False

    async def _pass(self, send: Send, method: str, path: str, headers: dict[str, str]) -> None:
        begun = False
        wanted = {name: headers[name] for name in _ASKED if name in headers}
        try:
            # Lengths and ranges are those of what lies there.
            async with self._upstream.ask(
                method, path, {**wanted, "Accept-Encoding": "identity"}
            ) as response:
                if response.status_code not in (200, 206, 304, 416):
                    gone = response.status_code in (401, 403, 404)
                    raise (
                        Answer(404, "NAME_UNKNOWN", "There is no such image.")
                        if gone
                        else Answer(502, "UNAVAILABLE", f"The registry answered {response.status_code}.")
                    )
                back = [
                    (name.encode(), response.headers[name].encode())
                    for name in _ANSWERED
                    if name in response.headers
                ]
                begun = True
                await _start(send, response.status_code, back)
                if method == "GET":
                    async for piece in response.aiter_raw():
                        await send({"type": "http.response.body", "body": piece, "more_body": True})
            await send({"type": "http.response.body", "body": b""})
        except Away as error:
            if begun:
                raise  # the connection ends early, so the runtime sees that it hasn't got everything
            raise Answer(503, "UNAVAILABLE", f"{str(error)[:1].upper()}{str(error)[1:]}.")


async def _start(send: Send, status: int, headers: list[tuple[bytes, bytes]]) -> None:
    await send({"type": "http.response.start", "status": status, "headers": [_VERSION, *headers]})


async def _reply(
    send: Send,
    method: str,
    status: int,
    body: bytes,
    *more: tuple[bytes, bytes],
    kind: str = "application/json",
) -> None:
    headers = [(b"content-type", kind.encode()), (b"content-length", str(len(body)).encode()), *more]
    await _start(send, status, headers)
    await send({"type": "http.response.body", "body": b"" if method == "HEAD" else body})


async def _give(send: Send, method: str, piece: Piece) -> None:
    digest = (b"docker-content-digest", piece.digest.encode())
    await _reply(send, method, 200, piece.content, digest, kind=piece.kind)


async def _refuse(send: Send, method: str, answer: Answer) -> None:
    body = json.dumps({"errors": [{"code": answer.code, "message": str(answer)}]}).encode()
    more = [(b"www-authenticate", b'Basic realm="cytoplane"')] if answer.status == 401 else []
    await _reply(send, method, answer.status, body, *more)
