"""The file by which a client finds an API server and is known to it."""

from __future__ import annotations

import base64

import yaml

from infra.kubernetes.certificates import Authority


def kubeconfig(server: str, authority: Authority, user: str, groups: tuple[str, ...] = ()) -> str:
    """A kubeconfig for a user of these groups, with a certificate of its own, everything inline."""
    certificate, key = authority.issue(user, groups)

    def inline(data: bytes) -> str:
        return base64.b64encode(data).decode()

    cluster = {"server": server, "certificate-authority-data": inline(authority.pem)}
    credentials = {"client-certificate-data": inline(certificate), "client-key-data": inline(key)}
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "development", "cluster": cluster}],
        "users": [{"name": user, "user": credentials}],
        "contexts": [{"name": "development", "context": {"cluster": "development", "user": user}}],
        "current-context": "development",
    }
    return yaml.safe_dump(document, sort_keys=False)
