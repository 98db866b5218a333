"""The agents' listener's own certificate."""

from __future__ import annotations

import stat
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from django.conf import settings

from dataplane.planes import authority, server_certificate
from tests.services import Services


@pytest.fixture
def folder(installation: Services) -> Path:
    found = settings.CONFIG.server_tls
    found.mkdir(exist_ok=True)
    for file in found.iterdir():
        file.unlink()
    return found


def test_it_is_made_once_and_again_when_a_third_of_its_life_is_over(folder: Path) -> None:
    assert server_certificate.renew()
    first = (folder / "server.pem").read_text()
    assert not server_certificate.renew()
    assert not server_certificate.renew(time.time() + server_certificate.RENEW_AFTER - 60)
    assert server_certificate.renew(time.time() + server_certificate.RENEW_AFTER + 60)
    assert (folder / "server.pem").read_text() != first


def test_it_belongs_to_its_key_and_to_the_authority_and_outlives_its_renewal(folder: Path) -> None:
    server_certificate.renew()
    certificate = x509.load_pem_x509_certificate((folder / "server.pem").read_bytes())
    key = serialization.load_pem_private_key((folder / "server.key").read_bytes(), None)
    assert certificate.public_key() == key.public_key()
    certificate.verify_directly_issued_by(authority.Authority().certificate)
    left = certificate.not_valid_after_utc - datetime.now(UTC)
    assert left.total_seconds() > 2 * server_certificate.RENEW_AFTER
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert "localhost" in names.get_values_for_type(x509.DNSName)


def test_nobody_but_its_user_and_the_gateways_group_reads_the_key(folder: Path) -> None:
    server_certificate.renew()
    assert stat.S_IMODE((folder / "server.key").stat().st_mode) == 0o640


def test_it_is_for_the_operators_names_too_and_made_anew_when_they_change(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server_certificate.renew()
    said = replace(settings.CONFIG, agents_names="planes.example.com, 192.0.2.1,2001:db8::1")
    monkeypatch.setattr(settings, "CONFIG", said)
    assert server_certificate.renew()
    assert not server_certificate.renew(), "the names are in it now"
    certificate = x509.load_pem_x509_certificate((folder / "server.pem").read_bytes())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert {"localhost", "planes.example.com"} <= set(names.get_values_for_type(x509.DNSName))
    addresses = set(map(str, names.get_values_for_type(x509.IPAddress)))
    assert {"127.0.0.1", "192.0.2.1", "2001:db8::1"} <= addresses
    assert said.agents_url == f"https://planes.example.com:{said.agents_port}"
