"""The installation's certificate authority: signs node certificates and the control gateway's own.

The key is a file that only the control plane's user reads. Node certificates are short-lived and
carry the node's number as a URI; what they may do is decided by the row, not by the name.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from django.conf import settings

NODE_LIFETIME = timedelta(days=7)
SERVER_LIFETIME = timedelta(days=90)
_AUTHORITY_LIFETIME = timedelta(days=3650)
#: Clocks of nodes may be a little behind.
_SKEW = timedelta(minutes=5)


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _write(file: Path, data: bytes, mode: int) -> None:
    temporary = file.with_name(file.name + ".new")
    temporary.touch(mode=mode)
    temporary.chmod(mode)
    temporary.write_bytes(data)
    temporary.rename(file)


def key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """PKCS 8, unencrypted: the file's mode protects it."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def ensure(folder: Path) -> None:
    """Make the authority if there is none. ``authority.pem`` is public, ``authority.key`` isn't."""
    if (folder / "authority.pem").exists():
        return
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(_name("Cytoplane authority"))
        .issuer_name(_name("Cytoplane authority"))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _SKEW)
        .not_valid_after(now + _AUTHORITY_LIFETIME)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(
            x509.KeyUsage(False, False, False, False, False, True, True, False, False), critical=True
        )
        .sign(key, hashes.SHA256())
    )
    _write(folder / "authority.key", key_pem(key), 0o600)
    _write(folder / "authority.pem", certificate.public_bytes(serialization.Encoding.PEM), 0o644)


class Authority:
    """The authority, loaded from its files."""

    def __init__(self, folder: Path | None = None) -> None:
        folder = folder or settings.CONFIG.secrets
        key = serialization.load_pem_private_key((folder / "authority.key").read_bytes(), None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        self._key = key
        self.pem = (folder / "authority.pem").read_text()
        self.certificate = x509.load_pem_x509_certificate(self.pem.encode())

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the authority's certificate, hex: what enrolment tokens carry."""
        return self.certificate.fingerprint(hashes.SHA256()).hex()

    def sign_node(self, csr_pem: str, node_id: int) -> x509.Certificate:
        """A client certificate for a node. Of the request, only the public key is used.

        Raises ``ValueError`` on a request that can't be read or isn't signed by its own key.
        """
        uri = x509.UniformResourceIdentifier(f"cytoplane://node/{node_id}")
        key = _requested(csr_pem)
        return self._sign(key, f"node {node_id}", [uri], NODE_LIFETIME, ExtendedKeyUsageOID.CLIENT_AUTH)

    def sign_gateway(
        self, csr_pem: str, common: str, name: x509.UniformResourceIdentifier, lifetime: timedelta
    ) -> x509.Certificate:
        """A certificate for both ends of a connection; else as ``sign_node``."""
        usages = (ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH)
        return self._sign(_requested(csr_pem), common, [name], lifetime, *usages)

    def issue_server(self, names: list[str]) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
        """A server certificate with a new key for host names and addresses."""
        key = ec.generate_private_key(ec.SECP256R1())
        alternatives: list[x509.GeneralName] = []
        for name in names:
            try:
                alternatives.append(x509.IPAddress(ipaddress.ip_address(name)))
            except ValueError:
                alternatives.append(x509.DNSName(name))
        certificate = self._sign(
            key.public_key(), names[0], alternatives, SERVER_LIFETIME, ExtendedKeyUsageOID.SERVER_AUTH
        )
        return certificate, key

    def _sign(
        self,
        public_key: ec.EllipticCurvePublicKey,
        common: str,
        alternatives: Iterable[x509.GeneralName],
        lifetime: timedelta,
        *usages: x509.ObjectIdentifier,
    ) -> x509.Certificate:
        now = datetime.now(UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(_name(common))
            .issuer_name(self.certificate.subject)
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - _SKEW)
            .not_valid_after(now + lifetime)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
            .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
            .sign(self._key, hashes.SHA256())
        )


def _requested(csr_pem: str) -> ec.EllipticCurvePublicKey:
    """The key of a certificate request that is signed by it. Raises ``ValueError``."""
    request = x509.load_pem_x509_csr(csr_pem.encode())
    key = request.public_key()
    if not request.is_signature_valid or not isinstance(key, ec.EllipticCurvePublicKey):
        raise ValueError("the certificate request isn't one that is signed by an EC key")
    return key


def pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def fingerprint(certificate: x509.Certificate) -> str:
    """SHA-256 of the DER form, hex, as Envoy forwards it."""
    return certificate.fingerprint(hashes.SHA256()).hex()
