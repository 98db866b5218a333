"""The server certificate of the agents' listener, renewed long before it ends or when its names change.

The control gateway watches the folder and takes a new certificate over without a restart.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from cryptography import x509
from django.conf import settings

from dataplane.planes import authority

#: Seconds; a third of its life.
RENEW_AFTER = authority.SERVER_LIFETIME.total_seconds() / 3


def renew(now: float | None = None) -> bool:
    """Write certificate, key and authority if they are due; whether they were."""
    config = settings.CONFIG
    folder = config.server_tls
    certificate = folder / "server.pem"
    now = time.time() if now is None else now
    names = dict.fromkeys(["localhost", "127.0.0.1", "::1", config.portal_host, *config.outside_names])
    fresh = certificate.exists() and now - certificate.stat().st_mtime < RENEW_AFTER
    if fresh and _names_of(certificate) == set(names):
        return False
    folder.mkdir(mode=0o750, exist_ok=True)
    signer = authority.Authority()
    made, key = signer.issue_server(list(names))
    files = {
        "authority.pem": signer.pem,
        "server.key": authority.key_pem(key).decode(),
        "server.pem": authority.pem(made) + signer.pem,
    }
    for name, text in files.items():
        _write(str(folder / f".{name}.new"), text)
    # The certificate last: whoever reads in between finds a pair that doesn't match and keeps the old one.
    for name in files:
        (folder / f".{name}.new").rename(folder / name)
    return True


def _names_of(file: Path) -> set[str]:
    """Whom a certificate is for; nobody if it can't be read."""
    try:
        found = x509.load_pem_x509_certificate(file.read_bytes())
        names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (ValueError, x509.ExtensionNotFound):
        return set()
    return {str(name.value) for name in names}


def _write(path: str, text: str) -> None:
    """A file for this user and for the folder's group, which is the gateway's."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o640)
    with os.fdopen(descriptor, "w") as handle:
        os.fchmod(descriptor, 0o640)
        handle.write(text)
