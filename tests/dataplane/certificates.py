"""A node's certificate as the authority signed it some time ago."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from dataplane.planes import authority
from dataplane.planes.models import Certificate


def ended(key: bytes, days: int) -> str:
    """One for this key that ended some days ago, in the place of the only one that there is."""
    signer = authority.Authority()
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(signer.certificate.subject)
        .public_key(serialization.load_pem_private_key(key, None).public_key())  # type: ignore[arg-type]
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=days + 7))
        .not_valid_after(now - timedelta(days=days))
        .sign(signer._key, hashes.SHA256())
    )
    Certificate.objects.update(
        fingerprint=authority.fingerprint(certificate), expires_at=now - timedelta(days=days)
    )
    return authority.pem(certificate)
