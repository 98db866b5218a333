"""The gateway's certificate: asked for once, renewed in time, for the gateway alone."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography import x509

from dataplane.client import ControlPlane
from dataplane.gateway import between, identity
from dataplane.gateway.identity import Identity
from dataplane.planes import enrolment, gateways
from dataplane.planes.models import Node, Plane
from infra.config import Config
from tests.dataplane import processes
from tests.dataplane.listener import config  # noqa: F401  a fixture

pytestmark = pytest.mark.root


@pytest.fixture
def own(config: Config, transactional_db: None, tmp_path: Path) -> Identity:
    """Of a node that has enrolled; the gateway's folder is the gateway's."""
    plane = Plane.objects.create(name="cluster", engine=Plane.Engine.KUBERNETES)
    control = ControlPlane(tmp_path / "agent", config.control_plane)
    (control.folder / "enrolment").write_text(enrolment.create_token(Node.Kind.AGENT, plane))
    control.enrol("node1", {})
    made = replace(config, home=tmp_path)
    made.gateway_dir.mkdir()
    shutil.chown(made.gateway_dir, *processes.nobody())
    return Identity(made, control)


def certificate(own: Identity) -> x509.Certificate:
    (secret,) = json.loads(own.file.read_text())["resources"]
    return x509.load_pem_x509_certificate(
        secret["tls_certificate"]["certificate_chain"]["inline_string"].encode()
    )


def test_it_is_asked_for_once_and_only_the_gateway_reads_it(own: Identity) -> None:
    assert own.renew_if_due()
    node = Node.objects.get()
    names = certificate(own).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert list(names) == [x509.UniformResourceIdentifier(gateways.name(node.plane_id or 0, node.pk))]
    status = own.file.stat()
    assert (status.st_mode & 0o777, status.st_uid, status.st_gid) == (0o600, *processes.nobody())
    assert own.file.name == between.IDENTITY
    before = own.file.read_bytes()
    assert not own.renew_if_due()
    assert own.file.read_bytes() == before


def test_another_one_comes_with_another_key_before_it_ends(
    own: Identity, monkeypatch: pytest.MonkeyPatch
) -> None:
    own.renew_if_due()
    before = certificate(own)
    monkeypatch.setattr(identity, "RENEW_AFTER", 0)
    assert own.renew_if_due()
    assert certificate(own).serial_number != before.serial_number
    assert certificate(own).public_key() != before.public_key()


@pytest.mark.parametrize("damage", [b"", b"{}", b'{"resources": []}', b"\xff", b'{"resources": [{}]}'])
def test_what_cant_be_read_is_asked_for_again(own: Identity, damage: bytes) -> None:
    own.file.write_bytes(damage)
    assert own.keep() and own.problem == ""
    assert certificate(own)


def test_a_node_that_enrols_again_gets_another_one_for_its_gateway(own: Identity) -> None:
    own.renew_if_due()
    before = certificate(own)
    node = Node.objects.get()
    own._control.folder.joinpath("enrolment").write_text(enrolment.create_token(node.kind, node.plane))
    own._control.enrol(node.name, {})
    assert own.renew_if_due() and not own.renew_if_due()
    node.refresh_from_db()
    names = certificate(own).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    expected = gateways.name(node.plane_id or 0, node.pk, node.enrolment)
    assert list(names) == [x509.UniformResourceIdentifier(expected)]
    assert certificate(own).extensions != before.extensions


def test_who_is_revoked_keeps_what_it_has_and_says_so(own: Identity, monkeypatch: pytest.MonkeyPatch) -> None:
    assert own.keep()
    before = own.file.read_bytes()
    enrolment.revoke("somebody", Node.objects.get())
    monkeypatch.setattr(identity, "RENEW_AFTER", 0)
    assert not own.keep()
    assert "certificate" in own.problem
    assert own.file.read_bytes() == before
