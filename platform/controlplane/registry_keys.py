"""Keys with which the control gateway and an image registry elsewhere know each other.

An authority of their own signs both and is thrown away: nobody else can ever have a certificate that
either accepts, nodes least of all. Who wants new ones deletes the old and makes new ones.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

#: What the registry's certificate is for, whatever address it has.
REGISTRY = "registry.cytoplane.internal"
_LIFETIME = timedelta(days=3650)
_SKEW = timedelta(minutes=5)


def make() -> dict[str, bytes]:
    """File name → content: ``authority.pem``, and certificate and key of ``registry`` and ``gateway``."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Cytoplane registry authority")])
    authority = _signed(name, name, key, key, x509.BasicConstraints(ca=True, path_length=0), [])
    files = {"authority.pem": authority.public_bytes(serialization.Encoding.PEM)}
    for part, usage in (
        ("registry", ExtendedKeyUsageOID.SERVER_AUTH),
        ("gateway", ExtendedKeyUsageOID.CLIENT_AUTH),
    ):
        own = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, part)])
        more: list[x509.ExtensionType] = [x509.ExtendedKeyUsage([usage])]
        if part == "registry":
            more.append(x509.SubjectAlternativeName([x509.DNSName(REGISTRY)]))
        made = _signed(subject, name, own, key, x509.BasicConstraints(ca=False, path_length=None), more)
        files[f"{part}.pem"] = made.public_bytes(serialization.Encoding.PEM)
        files[f"{part}.key"] = own.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    return files


def _signed(
    subject: x509.Name,
    issuer: x509.Name,
    own: ec.EllipticCurvePrivateKey,
    signer: ec.EllipticCurvePrivateKey,
    constraints: x509.BasicConstraints,
    more: list[x509.ExtensionType],
) -> x509.Certificate:
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(own.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _SKEW)
        .not_valid_after(now + _LIFETIME)
        .add_extension(constraints, critical=True)
    )
    for extension in more:
        builder = builder.add_extension(extension, critical=False)
    return builder.sign(signer, hashes.SHA256())
