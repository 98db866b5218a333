"""A node's side of the protocol with the control plane: enrolment, mutual TLS, renewal.

Shared by agent and builder; everything it keeps lies in one folder that only root opens.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import ssl
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

log = logging.getLogger("cytoplane.client")
#: The certificate is renewed after this part of its life.
RENEW_AFTER = 2 / 3
#: So long a request waits for an answer: longer than any question that waits for news.
SILENCE_SECONDS = 40.0


class NotEnrolled(RuntimeError):
    """There is no certificate and no token to get one with."""


class Refused(RuntimeError):
    """The control plane refused; the message is its sentence. ``status`` 0: not by an HTTP answer."""

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status

    @property
    def final(self) -> bool:
        """Whether the same request will never be taken: it is the request that is wrong."""
        return self.status in (400, 413, 422)


def write_private(file: Path, data: bytes) -> None:
    """Write a file that only its owner reads, completely or not at all."""
    temporary = file.with_name(f".{file.name}.new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as handle:
        handle.write(data)
        handle.flush()
        os.fsync(handle.fileno())
    temporary.rename(file)


class ControlPlane:
    """Requests to the agents' listener of a control plane, ``base`` being `https://host:port`.

    Its certificate must be from the authority that the enrolment token named, and for that host.
    """

    def __init__(self, folder: Path, base: str) -> None:
        self.folder, self.base = folder, base
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock = threading.Lock()
        self._client: httpx.Client | None = None

    # Files of an identity.
    @property
    def certificate(self) -> Path:
        return self.folder / "client.cert"

    @property
    def key(self) -> Path:
        return self.folder / "client.key"

    @property
    def authority(self) -> Path:
        return self.folder / "ca.crt"

    @property
    def enrolled(self) -> bool:
        return self.certificate.exists() and self.key.exists() and self.authority.exists()

    @property
    def identity(self) -> dict[str, Any]:
        """``node_id``, ``plane_id`` and the node's ``enrolment`` (1 if it is missing) as the control plane
        gave them."""
        return json.loads((self.folder / "identity.json").read_text())

    def _request_certificate(self) -> str:
        """A signed request for this node's key, which is made if there is none."""
        if not self.key.exists():
            made = ec.generate_private_key(ec.SECP256R1())
            data = made.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
            write_private(self.key, data)
        key = serialization.load_pem_private_key(self.key.read_bytes(), None)
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "node")])
        request = x509.CertificateSigningRequestBuilder().subject_name(name)
        signed = request.sign(key, hashes.SHA256())  # type: ignore[arg-type]
        return signed.public_bytes(serialization.Encoding.PEM).decode()

    def enrol(self, name: str, facts: dict[str, Any]) -> None:
        """Trade the token in ``enrolment`` for a certificate; does nothing if there is no token.

        The token carries the authority's fingerprint: nobody else's certificate is believed.
        Raises ``Refused``, ``NotEnrolled`` or an ``httpx`` error.
        """
        file = self.folder / "enrolment"
        if not file.exists():
            if self.enrolled:
                return
            raise NotEnrolled(f"no enrolment token in {file}: make one with `cyto planes token`")
        token = file.read_text().strip()
        fingerprint = token.rpartition(".")[2]
        # Only to learn the authority, which is compared with the token before it is trusted.
        answer = httpx.get(f"{self.base}/authority", verify=False, timeout=10)  # noqa: S501
        answer.raise_for_status()
        try:
            authority = x509.load_pem_x509_certificate(answer.content)
        except ValueError:
            raise Refused("the control plane's authority isn't a certificate") from None
        if hashlib.sha256(authority.public_bytes(serialization.Encoding.DER)).hexdigest() != fingerprint:
            raise Refused("the control plane's authority isn't the one that the enrolment token names")
        # This one alone: whatever else the answer held was compared with nothing.
        trusted = authority.public_bytes(serialization.Encoding.PEM).decode()
        context = ssl.create_default_context(cadata=trusted)
        answer = httpx.post(
            f"{self.base}/enrol",
            json={"token": token, "csr_pem": self._request_certificate(), "name": name, "facts": facts},
            verify=context,
            timeout=20,
        )
        if answer.status_code == 403 and self.enrolled:
            # Whoever went down between its certificate and this line finds a token that is used up.
            log.warning("the enrolment token is refused; the certificate stays what it was")
            file.unlink()
            return
        document = self._document(answer)
        given = {key: document[key] for key in ("node_id", "plane_id", "enrolment") if key in document}
        # First: a certificate stands for what is written here already.
        write_private(self.folder / "identity.json", json.dumps(given).encode())
        self._keep({**document, "authority_pem": trusted})
        file.unlink()

    def _keep(self, document: dict[str, Any]) -> None:
        write_private(self.authority, document["authority_pem"].encode())
        write_private(self.certificate, document["certificate_pem"].encode())
        with self._lock:
            self._client = None

    def renew_if_due(self) -> None:
        """Get a fresh certificate once two thirds of the old one's life are over."""
        certificate = x509.load_pem_x509_certificate(self.certificate.read_bytes())
        begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
        if datetime.now(UTC) < begin + (end - begin) * RENEW_AFTER:
            return
        self._keep(self.post("/renew", {"csr_pem": self._request_certificate()}))
        log.info("certificate renewed")

    # Requests.
    def _open(self) -> httpx.Client:
        with self._lock:
            if self._client is None:
                context = ssl.create_default_context(cafile=str(self.authority))
                context.load_cert_chain(str(self.certificate), str(self.key))
                self._client = httpx.Client(base_url=self.base, verify=context, timeout=SILENCE_SECONDS)
            return self._client

    @staticmethod
    def _document(answer: httpx.Response) -> dict[str, Any]:
        if answer.is_success:
            try:
                document = answer.json() if answer.content else {}
            except ValueError:
                document = None
            if not isinstance(document, dict):
                raise Refused("what answered isn't a control plane")
            return document
        try:
            raise Refused(answer.json()["error"]["message"], answer.status_code)
        except (ValueError, KeyError, TypeError):
            raise Refused(f"the control plane answered {answer.status_code}", answer.status_code) from None

    def post(
        self, path: str, document: dict[str, Any], *, timeout: float = SILENCE_SECONDS
    ) -> dict[str, Any]:
        """Raises ``Refused`` or an ``httpx.HTTPError``, also after ``timeout`` seconds of silence."""
        return self._document(self._open().post(path, json=document, timeout=timeout))

    def get(self, path: str, *, timeout: float = SILENCE_SECONDS, **parameters: Any) -> dict[str, Any] | None:
        """The document, or None for 204 and 304."""
        answer = self._open().get(path, params=parameters, timeout=timeout)
        return None if answer.status_code in (204, 304) else self._document(answer)

    def download(self, path: str, target: Path) -> None:
        """Stream a file to ``target``."""
        with self._open().stream("GET", path) as answer:
            if not answer.is_success:
                answer.read()
                self._document(answer)
            with target.open("wb") as handle:
                for piece in answer.iter_bytes():
                    handle.write(piece)
