"""The gateway's own certificate towards other nodes' gateways: asked for by the agent, read by Envoy."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path

import httpx
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from dataplane.client import RENEW_AFTER, ControlPlane, Refused, write_private
from dataplane.gateway import between
from infra.config import Config


class Identity:
    """Keeps the file that ``between.IDENTITY`` names."""

    def __init__(self, config: Config, control: ControlPlane) -> None:
        self._control = control
        self.file = config.gateway_dir / between.IDENTITY
        #: Why there is none or the one there is gets old, as a sentence.
        self.problem = ""

    def keep(self) -> bool:
        """``renew_if_due`` for somebody who has more to do; what went wrong is ``problem``."""
        try:
            fresh = self.renew_if_due()
            self.problem = ""
            return fresh
        except (httpx.HTTPError, Refused, OSError) as error:
            self.problem = f"the gateway gets no certificate for other nodes: {error}"
            return False

    def renew_if_due(self) -> bool:
        """Get a certificate if there is none, it is of an earlier enrolment of the node, or two thirds of its
        life are over; whether one was got.

        Raises ``Refused`` or an ``httpx.HTTPError``; the one before stays.
        """
        if not self._due():
            return False
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "gateway")])
        request = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
        csr = request.public_bytes(serialization.Encoding.PEM).decode()
        answer = self._control.post("/agent/gateway-certificate", {"csr_pem": csr})
        pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        write(self.file, answer["certificate_pem"], pem.decode())
        return True

    def _due(self) -> bool:
        try:
            (secret,) = json.loads(self.file.read_text())["resources"]
            chain = secret["tls_certificate"]["certificate_chain"]["inline_string"]
            found = x509.load_pem_x509_certificate(chain.encode())
        except (OSError, ValueError, LookupError, TypeError):
            return True
        if not self._current(found):
            return True
        begin, end = found.not_valid_before_utc, found.not_valid_after_utc
        return datetime.now(UTC) >= begin + (end - begin) * RENEW_AFTER

    def _current(self, found: x509.Certificate) -> bool:
        """Whether it is of the node's present enrolment, as far as that is known."""
        try:
            own = self._control.identity
            name = between.name(own["plane_id"], own["node_id"], own.get("enrolment", 1))
        except (OSError, ValueError, LookupError, TypeError):
            return True
        return name in _names(found)


def _names(certificate: x509.Certificate) -> list[str]:
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return found.get_values_for_type(x509.UniformResourceIdentifier)


def write(file: Path, certificate: str, key: str) -> None:
    """Both in one file, so that Envoy never sees one without the other; only who owns the folder reads it."""
    resources = between.secret(certificate, key)
    fresh = file.with_name(f".{file.name}.own")
    write_private(fresh, json.dumps({"resources": resources}).encode())
    owner = file.parent.stat()
    os.chown(fresh, owner.st_uid, owner.st_gid)
    fresh.rename(file)
