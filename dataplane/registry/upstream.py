"""The control plane's registry, asked with the node's own certificate."""

from __future__ import annotations

import hashlib
import json
import logging
import ssl
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx

from dataplane.client import ControlPlane

log = logging.getLogger("cytoplane.registry")
#: What a manifest may at most have: it is read as a whole.
LARGEST_MANIFEST = 4 * 2**20
#: Manifests whose layers are known; each is some hundred bytes.
_KNOWN = 1024
_TIMEOUT = httpx.Timeout(60.0, connect=5.0)
#: All kinds of a single image. Builds make no others.
MANIFESTS = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)


class Away(RuntimeError):
    """The control plane doesn't answer, or this node isn't enrolled; the message says which."""


class Missing(RuntimeError):
    """The registry hasn't got it, or doesn't let this node have it."""


class Upstream:
    """Requests to the registry. Survives renewals: another certificate means another client."""

    def __init__(self, control: ControlPlane) -> None:
        self._control = control
        self._client: httpx.AsyncClient | None = None
        self._stamp: tuple[int, ...] = ()
        self._layers: OrderedDict[str, frozenset[str]] = OrderedDict()

    @property
    def ready(self) -> bool:
        return self._control.enrolled

    def _open(self) -> httpx.AsyncClient:
        if not self._control.enrolled:
            raise Away("this node isn't enrolled yet")
        files = (self._control.certificate, self._control.key, self._control.authority)
        stamp = tuple(number for file in files for number in (file.stat().st_ino, file.stat().st_mtime_ns))
        if self._client is None or stamp != self._stamp:
            # What streams through the earlier client goes on; it is closed by its last reader.
            context = ssl.create_default_context(cafile=str(self._control.authority))
            context.load_cert_chain(str(self._control.certificate), str(self._control.key))
            self._client = httpx.AsyncClient(
                base_url=self._control.base, verify=context, timeout=_TIMEOUT, follow_redirects=False
            )
            self._stamp = stamp
        return self._client

    @asynccontextmanager
    async def ask(self, method: str, path: str, headers: dict[str, str]) -> AsyncIterator[httpx.Response]:
        """A response that isn't read yet. Raises ``Away``."""
        try:
            async with self._open().stream(method, path, headers=headers) as response:
                yield response
        except (httpx.HTTPError, OSError) as error:
            log.warning("%s %s: %s", method, path, error)
            raise Away("the control plane's registry doesn't answer") from error

    async def layers(self, repository: str, digest: str) -> frozenset[str]:
        """What an image consists of, by its manifest, which never changes. Raises ``Away`` or ``Missing``."""
        key = f"{repository}@{digest}"
        if (found := self._layers.get(key)) is not None:
            self._layers.move_to_end(key)
            return found
        path = f"/v2/{repository}/manifests/{digest}"
        async with self.ask("GET", path, {"Accept": ", ".join(MANIFESTS)}) as response:
            if not response.is_success:
                raise Missing(f"the registry answered {response.status_code} for {key}")
            text = b""
            async for piece in response.aiter_bytes():
                text += piece
                if len(text) > LARGEST_MANIFEST:
                    raise Missing(f"the manifest of {key} is too large")
        if f"sha256:{hashlib.sha256(text).hexdigest()}" != digest:
            raise Missing(f"the manifest of {key} isn't what its digest says")
        found = self._layers[key] = _parts(json.loads(text))
        while len(self._layers) > _KNOWN:
            self._layers.popitem(last=False)
        return found


def _parts(manifest: dict[str, Any]) -> frozenset[str]:
    entries = [manifest.get("config") or {}, *(manifest.get("layers") or [])]
    return frozenset(str(entry.get("digest")) for entry in entries)
