"""A small client of the API server, with the administrator's certificate."""

from __future__ import annotations

import json
import ssl
from typing import Any

import httpx

from infra.cluster.settings import Cluster


class Client(httpx.Client):
    """Requests by path. Raises ``httpx.HTTPError`` where nobody answers."""

    def __init__(self, cluster: Cluster, seconds: float = 10) -> None:
        context = ssl.create_default_context(cafile=str(cluster.pki / "authority.pem"))
        context.load_cert_chain(cluster.pki / "admin.pem", cluster.pki / "admin.key")
        super().__init__(base_url=cluster.server, verify=context, timeout=seconds, trust_env=False)

    def document(self, path: str, **query: Any) -> dict[str, Any]:
        """An object or a list. Raises ``httpx.HTTPStatusError`` with the server's words."""
        return _checked(self.get(path, params=query)).json()

    def create(self, path: str, document: dict[str, Any]) -> None:
        """Create an object; nothing happens if it is there."""
        answer = self.post(path, json=document)
        if answer.status_code != 409:
            _checked(answer)

    def change(self, path: str, fields: dict[str, Any]) -> None:
        """Set fields of an object (a merge patch)."""
        headers = {"Content-Type": "application/merge-patch+json"}
        _checked(self.patch(path, content=json.dumps(fields), headers=headers))

    def remove(self, path: str) -> None:
        """Delete an object; nothing happens if there is none."""
        answer = self.delete(path)
        if answer.status_code != 404:
            _checked(answer)

    def ready(self) -> bool:
        """Whether the server says that it is."""
        try:
            return self.get("/readyz").status_code == 200
        except httpx.HTTPError:
            return False


def _checked(answer: httpx.Response) -> httpx.Response:
    if answer.is_error:
        words = answer.text[:500]
        raise httpx.HTTPStatusError(f"{answer.status_code}: {words}", request=answer.request, response=answer)
    return answer
