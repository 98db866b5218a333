"""Reading a kubeconfig that somebody handed in: only what is needed is kept, the rest is refused.

A kubeconfig can name programs to run and files to read. It is used by workers of the platform, so
neither is accepted: everything has to be inline. What tools get to see is written anew from the
parts that were kept.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import yaml

LARGEST = 64 * 1024
_CLUSTER = {"server", "certificate-authority-data", "tls-server-name"}
_USER = {"client-certificate-data", "client-key-data", "token"}
#: Harmless, and without meaning here.
_IGNORED = {"extensions"}


class InvalidKubeconfig(ValueError):
    """The kubeconfig can't be used; the text says why and holds nothing secret."""


@dataclass(frozen=True)
class Kubeconfig:
    """An API server and how to sign in there. PEM texts; ``repr`` shows no secret."""

    server: str
    authority: str
    certificate: str = ""
    key: str = field(default="", repr=False)
    token: str = field(default="", repr=False)
    server_name: str = ""

    @classmethod
    def parse(cls, text: str) -> Kubeconfig:
        """Read the current context of a kubeconfig. Raises ``InvalidKubeconfig``."""
        if len(text) > LARGEST:
            raise InvalidKubeconfig(f"it is larger than {LARGEST // 1024} KiB")
        try:
            document = yaml.safe_load(text)
        except yaml.YAMLError:
            raise InvalidKubeconfig("it isn't YAML") from None
        if not isinstance(document, dict) or document.get("kind") != "Config":
            raise InvalidKubeconfig("it isn't a kubeconfig (kind: Config)")
        context = _named(document, "contexts", document.get("current-context"), "context")
        cluster = _named(document, "clusters", context.get("cluster"), "cluster")
        user = _named(document, "users", context.get("user"), "user")
        _only(cluster, _CLUSTER, "cluster")
        _only(user, _USER, "user")
        found = cls(
            server=_server(cluster.get("server")),
            authority=_decoded(cluster, "certificate-authority-data"),
            certificate=_decoded(user, "client-certificate-data"),
            key=_decoded(user, "client-key-data"),
            token=_text(user, "token"),
            server_name=_text(cluster, "tls-server-name"),
        )
        if bool(found.certificate) != bool(found.key):
            raise InvalidKubeconfig("a client certificate needs its key")
        if bool(found.certificate) == bool(found.token):
            raise InvalidKubeconfig("it needs either a client certificate or a token")
        return found

    def as_yaml(self) -> str:
        """A kubeconfig that holds exactly this."""
        cluster = {"server": self.server}
        if self.authority:
            cluster["certificate-authority-data"] = _encoded(self.authority)
        if self.server_name:
            cluster["tls-server-name"] = self.server_name
        user = {"token": self.token}
        if self.certificate:
            user = {
                "client-certificate-data": _encoded(self.certificate),
                "client-key-data": _encoded(self.key),
            }
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "plane", "cluster": cluster}],
            "users": [{"name": "cytoplane", "user": user}],
            "contexts": [{"name": "plane", "context": {"cluster": "plane", "user": "cytoplane"}}],
            "current-context": "plane",
        }
        return yaml.safe_dump(document, sort_keys=False)


def _named(document: dict[str, Any], part: str, name: object, inner: str) -> dict[str, Any]:
    entries = document.get(part)
    for entry in entries if isinstance(entries, list) else []:
        if isinstance(entry, dict) and name is not None and entry.get("name") == name:
            found = entry.get(inner)
            if isinstance(found, dict):
                return found
    raise InvalidKubeconfig(f"its current context names no {inner} that is in it")


def _only(part: dict[str, Any], known: set[str], what: str) -> None:
    for key in part:
        if key in known | _IGNORED:
            continue
        shown = str(key)[:60]
        if key in ("exec", "auth-provider"):
            raise InvalidKubeconfig(
                f"its {what} wants to run a program (`{shown}`): use a token or certificate"
            )
        if f"{key}-data" in known or key == "tokenFile":
            raise InvalidKubeconfig(
                f"its {what} names a file (`{shown}`): put it inline, `--flatten` does it"
            )
        raise InvalidKubeconfig(f"its {what} has `{shown}`, which isn't supported")


def _server(value: object) -> str:
    parts = urlsplit(value) if isinstance(value, str) else None
    if parts is None or parts.scheme != "https" or not parts.hostname or parts.username or parts.query:
        raise InvalidKubeconfig("its server isn't an https:// address")
    return parts.geturl().rstrip("/")


def _text(part: dict[str, Any], key: str) -> str:
    value = part.get(key, "")
    if not isinstance(value, str) or not value.isprintable():
        raise InvalidKubeconfig(f"`{key}` isn't a text")
    return value


def _decoded(part: dict[str, Any], key: str) -> str:
    value = _text(part, key)
    try:
        text = base64.b64decode(value, validate=True).decode("ascii")
    except (binascii.Error, UnicodeDecodeError):
        raise InvalidKubeconfig(f"`{key}` isn't PEM in base64") from None
    if text and "-----BEGIN " not in text:
        raise InvalidKubeconfig(f"`{key}` isn't PEM in base64")
    return text


def _encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()
