"""A throw-away certificate authority for a development API server and its clients."""

from __future__ import annotations

import ipaddress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_LIFETIME = timedelta(days=30)
_SKEW = timedelta(minutes=5)
PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


def _pem(key: PrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def write_secret(file: Path, data: bytes) -> None:
    """A file that only its owner reads, from its first byte on."""
    file.touch(mode=0o600)
    file.write_bytes(data)


def signing_key(file: Path) -> None:
    """The key that service accounts' tokens are signed with."""
    write_secret(file, _pem(rsa.generate_private_key(public_exponent=65537, key_size=2048)))


def _name(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.DNSName(text)


class Authority:
    """Signs server and client certificates; lives as long as the API server does."""

    def __init__(self, common: str = "development", lifetime: timedelta = _LIFETIME) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._lifetime = lifetime
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])
        builder = self._builder(self._name, self._key.public_key())
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        self._certificate = builder.sign(self._key, hashes.SHA256())

    @property
    def key(self) -> bytes:
        """The authority's own key, for what signs by itself (the controller of signing requests)."""
        return _pem(self._key)

    @property
    def pem(self) -> bytes:
        """The authority's own certificate."""
        return self._certificate.public_bytes(serialization.Encoding.PEM)

    def _builder(self, subject: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
        now = datetime.now(UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - _SKEW)
            .not_valid_after(now + self._lifetime)
        )

    def issue(
        self,
        common: str,
        organisations: tuple[str, ...] = (),
        address: str = "",
        names: tuple[str, ...] = (),
    ) -> tuple[bytes, bytes]:
        """Certificate and key, PEM. To Kubernetes the common name is a user, organisations are groups.

        With ``address`` it is also a server's, which has ``names`` (addresses, host names) as well.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        parts = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in organisations]
        subject = x509.Name([*parts, x509.NameAttribute(NameOID.COMMON_NAME, common)])
        usages = [ExtendedKeyUsageOID.CLIENT_AUTH]
        builder = self._builder(subject, key.public_key())
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        if address:
            usages.append(ExtendedKeyUsageOID.SERVER_AUTH)
            alternatives = [x509.DNSName("localhost"), *map(_name, (address, *names))]
            builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        certificate = builder.sign(self._key, hashes.SHA256())
        return certificate.public_bytes(serialization.Encoding.PEM), _pem(key)
