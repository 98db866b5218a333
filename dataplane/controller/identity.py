"""The controller's certificate: joined with a token from the cluster, kept in the cluster.

Any of several controllers may have to work next, and pods lose their files. The secret lies where only
controllers read: beside Helm's records, not where the nodes' agents collect their tokens.
"""

from __future__ import annotations

import base64
import logging
from pathlib import Path
from typing import Any

from cryptography import x509

from dataplane.client import ControlPlane, write_private
from dataplane.drivers.kubernetes.api import Api
from dataplane.drivers.kubernetes.records import RELEASES

log = logging.getLogger("cytoplane.controller")
#: Its name in its plane: there is one, however many pods take turns.
NAME = "controller"
#: Its token's is none that a node could have (``nodes.secret_of``), whatever a node is called: the two would
#: take each other's, and with it each other's identity.
SECRET, TOKEN = "plane-controller", "controller-enrolment"
_FILES = ("client.cert", "client.key", "ca.crt", "identity.json")


def join(control: ControlPlane, api: Api, namespace: str, facts: dict[str, Any]) -> None:
    """Become known, by what the cluster keeps or by a token that lies there. Raises what they raise."""
    restore(control.folder, api)
    secret = api.get("v1", "Secret", namespace, TOKEN)
    if secret is not None:
        write_private(control.folder / "enrolment", base64.b64decode(secret["data"]["token"]))
    # Without a token and with a certificate it does nothing; with neither it raises ``NotEnrolled``.
    control.enrol(NAME, facts)
    keep(control.folder, api)
    if secret is not None:
        api.delete("v1", "Secret", namespace, TOKEN)
        log.info("joined; the token is used up and gone")


def restore(folder: Path, api: Api) -> None:
    """Take the certificate that is kept, unless the one here ends later."""
    secret = api.get("v1", "Secret", RELEASES, SECRET)
    if secret is None:
        return
    files = {name: base64.b64decode(secret["data"].get(name, "")) for name in _FILES}
    if not all(files.values()) or _ends(files["client.cert"]) <= _ends(_read(folder / "client.cert")):
        return
    for name, data in files.items():
        write_private(folder / name, data)


def keep(folder: Path, api: Api) -> None:
    """Write it down if it is another one."""
    files = {name: base64.b64encode(_read(folder / name)).decode() for name in _FILES}
    known = api.get("v1", "Secret", RELEASES, SECRET)
    if known is not None and known.get("data") == files:
        return
    labels = {"app.kubernetes.io/part-of": "cytoplane"}
    if api.get("v1", "Namespace", "", RELEASES) is None:
        api.create(
            {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": RELEASES, "labels": labels}}
        )
    metadata = {"name": SECRET, "namespace": RELEASES, "labels": labels}
    api.apply({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "type": "Opaque", "data": files})


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except FileNotFoundError:
        return b""


def _ends(pem: bytes) -> float:
    try:
        return x509.load_pem_x509_certificate(pem).not_valid_after_utc.timestamp()
    except ValueError:
        return 0.0
