"""A node becomes known with a one-time token, and by nothing else."""

from __future__ import annotations

import threading
from datetime import timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID
from django.db import connection
from django.utils import timezone

from controlplane.errors import CytoplaneError
from dataplane.planes import authority, enrolment
from dataplane.planes.models import EnrolmentToken, Node, Plane
from tests import factories
from tests.dataplane.planes.conftest import Bare


def enrol(token: str, name: Any = "node-1", csr: Any = None, facts: Any = None):  # type: ignore[no-untyped-def]
    document = {
        "token": token,
        "name": name,
        "csr_pem": factories.certificate_request() if csr is None else csr,
        "facts": {} if facts is None else facts,
    }
    return factories.surface(factories.client(), "POST", "/enrol", document)


def token(bare: Bare, kind: str = Node.Kind.AGENT) -> str:
    return enrolment.create_token(kind, bare.plane if kind == Node.Kind.AGENT else None)


def test_a_token_gives_one_certificate_that_the_authority_signed(bare: Bare) -> None:
    secret = token(bare)
    answer = enrol(secret, facts={"cpus": 2})
    assert answer.status_code == 200, answer.content
    document = answer.json()
    assert document["plane_id"] == bare.plane.pk
    node = Node.objects.get(pk=document["node_id"])
    assert (node.name, node.kind, node.facts) == ("node-1", "agent", {"cpus": 2})
    certificate = x509.load_pem_x509_certificate(document["certificate_pem"].encode())
    signer = x509.load_pem_x509_certificate(document["authority_pem"].encode())
    certificate.verify_directly_issued_by(signer)
    assert signer.fingerprint(hashes.SHA256()).hex() == secret.rpartition(".")[2]
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == [f"cytoplane://node/{node.pk}"]
    assert node.certificates.get().fingerprint == authority.fingerprint(certificate)
    again = enrol(secret)
    assert (again.status_code, again.json()["error"]["id"]) == (403, "enrolment-refused")
    assert node.certificates.filter(revoked_at=None).count() == 1


def test_a_token_is_kept_only_as_a_digest(bare: Bare) -> None:
    secret = token(bare).removeprefix("cye_").partition(".")[0]
    row = EnrolmentToken.objects.get()
    assert secret not in str(vars(row))


def test_an_expired_token_opens_nothing(bare: Bare) -> None:
    secret = token(bare)
    EnrolmentToken.objects.update(expires_at=timezone.now() - timedelta(seconds=1))
    assert enrol(secret).status_code == 403
    assert not Node.objects.exists()


@pytest.mark.parametrize("secret", ["", "cye_", "cye_.", "x" * 5000, "\x00", "\ud800", "cye_\ud800.ab"])
def test_what_isnt_a_token_is_refused(bare: Bare, secret: str) -> None:
    token(bare)
    assert enrol(secret).status_code == 403


@pytest.mark.parametrize("name", ["", "-a", ".a", "a b", "a/b", "a\n", "é", "a" * 81, "a\x00", None, {}, 7.5])
def test_names_that_could_be_something_else_are_refused_and_cost_no_token(bare: Bare, name: Any) -> None:
    secret = token(bare)
    answer = enrol(secret, name)
    assert (answer.status_code == 403) == (name not in (None, 7.5)), answer.content
    if answer.status_code == 403:
        assert enrol(secret, "node-1").status_code == 200


def test_the_kind_and_the_plane_are_the_tokens_not_the_nodes_to_say(bare: Bare) -> None:
    document = {
        "token": token(bare, Node.Kind.BUILDER),
        "name": "b",
        "kind": "agent",
        "plane": bare.plane.pk,
    }
    document["csr_pem"] = factories.certificate_request()
    answer = factories.surface(factories.client(), "POST", "/enrol", document)
    node = Node.objects.get(pk=answer.json()["node_id"])
    assert (node.kind, node.plane) == (Node.Kind.BUILDER, None)


def test_a_machine_plane_has_exactly_one_node(bare: Bare) -> None:
    assert enrol(token(bare), "node-1").status_code == 200
    other = token(bare)
    assert enrol(other, "node-2").status_code == 403
    assert list(Node.objects.values_list("name", flat=True)) == ["node-1"]
    assert enrol(other, "node-1").status_code == 200, "a refused name must not use the token up"


def at_once(secrets: list[str], names: list[str]) -> list[int]:
    """What is answered to enrolments that all begin together."""
    together = threading.Barrier(len(secrets))
    statuses: list[int] = []

    def attempt(secret: str, name: str) -> None:
        try:
            together.wait(10)
            enrolment.enrol(secret, factories.certificate_request(), name, {})
            statuses.append(200)
        except CytoplaneError as error:
            statuses.append(error.status)
        finally:
            connection.close()

    threads = [threading.Thread(target=attempt, args=both) for both in zip(secrets, names, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sorted(statuses)


def test_two_nodes_at_once_are_one_too_many(transactional_db: None) -> None:
    bare = Bare()
    secrets = [token(bare) for _ in range(4)]
    assert at_once(secrets, [f"node-{number}" for number in range(4)]) == [200, 403, 403, 403]
    assert Node.objects.count() == 1


def test_two_builders_of_one_name_are_one(transactional_db: None) -> None:
    bare = Bare()
    secrets = [token(bare, Node.Kind.BUILDER) for _ in range(6)]
    assert at_once(secrets, ["builder-1"] * 6) == [200] * 6
    node = Node.objects.get()
    assert node.enrolment == 6
    assert node.certificates.filter(revoked_at=None).count() == 1


def test_a_cluster_has_many_nodes(bare: Bare) -> None:
    plane = Plane.objects.create(name="cluster", engine=Plane.Engine.KUBERNETES)
    for name in ("a", "b"):
        assert enrol(enrolment.create_token(Node.Kind.AGENT, plane), name).status_code == 200
    assert plane.nodes.count() == 2


def test_enrolling_again_closes_the_certificates_from_before(bare: Bare) -> None:
    first = bare.agent()
    before = first.certificate.fingerprint
    Node.objects.update(acknowledged=12)
    second = bare.agent()
    assert second.node == first.node
    assert first("POST", "/agent/acknowledge", {}, certificate=before).status_code == 401
    assert first("POST", "/renew", {"csr_pem": "x"}, certificate=before).status_code == 401
    assert second("POST", "/agent/acknowledge", {}).status_code == 200
    assert second.node.acknowledged == 0, "what the node had applied is gone with it"


def _rsa_request() -> str:
    key = rsa.generate_private_key(65537, 2048)
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
    return request.public_bytes(serialization.Encoding.PEM).decode()


def _wrong_signature() -> str:
    pem = factories.certificate_request()
    der = bytearray(x509.load_pem_x509_csr(pem.encode()).public_bytes(serialization.Encoding.DER))
    der[-1] ^= 1
    return x509.load_der_x509_csr(bytes(der)).public_bytes(serialization.Encoding.PEM).decode()


@pytest.mark.parametrize(
    "make",
    [
        lambda: "",
        lambda: "nonsense",
        lambda: "\ud800",
        lambda: [],
        lambda: "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n",
        lambda: factories.certificate_request()[:-60],
        _rsa_request,
        _wrong_signature,
    ],
)
def test_a_request_that_cant_be_signed_is_the_senders_error_and_costs_no_token(bare: Bare, make) -> None:  # type: ignore[no-untyped-def]
    secret = token(bare)
    answer = enrol(secret, csr=make() or "empty")
    assert (answer.status_code, answer.json()["error"]["id"]) == (422, "invalid"), answer.content
    assert not Node.objects.exists()
    assert enrol(secret).status_code == 200


def test_the_certificate_says_nothing_that_the_request_wished_for(bare: Bare) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    wish = x509.SubjectAlternativeName(
        [x509.UniformResourceIdentifier("cytoplane://node/1"), x509.DNSName("localhost")]
    )
    request = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([]))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(wish, critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = request.public_bytes(serialization.Encoding.PEM).decode()
    document = enrol(token(bare), csr=pem).json()
    made = x509.load_pem_x509_certificate(document["certificate_pem"].encode())
    names = made.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert list(names) == [x509.UniformResourceIdentifier(f"cytoplane://node/{document['node_id']}")]
    assert not made.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    usage = made.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.CLIENT_AUTH]


@pytest.mark.parametrize("facts", [{"a": "\x00", "\x00": 1}, {"a": "\ud800"}, {"a": 1e999}, [1], "x", None])
def test_facts_that_cant_be_stored_as_they_are_dont_break_enrolment(bare: Bare, facts: Any) -> None:
    assert enrol(token(bare), facts=facts).status_code == 200


@pytest.mark.parametrize("body", ["[" * 100000, "{", "[]", '"x"', "\xff", "9" * 5000, '{"token": NaN}'])
def test_a_body_that_isnt_an_object_is_the_senders_error(bare: Bare, body: str) -> None:
    answer = factories.surface(factories.client(), "POST", "/enrol", body)
    assert answer.status_code in (403, 422), answer.content


def test_the_authority_is_told_to_everybody_and_its_key_to_nobody(bare: Bare) -> None:
    answer = factories.surface(factories.client(), "GET", "/authority")
    assert answer.content.decode() == authority.Authority().pem
    assert b"PRIVATE" not in answer.content
