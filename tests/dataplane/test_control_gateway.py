"""The agents' listener as an installation has it, and a node's client."""

from __future__ import annotations

import asyncio
import hashlib
import shutil
import ssl
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
import uvicorn
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from django.utils import timezone

from dataplane.client import ControlPlane, NotEnrolled, Refused
from dataplane.planes import authority, enrolment
from dataplane.planes.models import Certificate, Node
from delivery import actions, machine
from delivery.models import Build
from infra.config import Config
from tests.dataplane import processes
from tests.dataplane.certificates import ended
from tests.dataplane.listener import config  # noqa: F401  a fixture
from tests.dataplane.planes.conftest import Bare
from tests.factories import World

pytestmark = pytest.mark.root


@pytest.fixture
def bare(transactional_db: None) -> Bare:
    return Bare()


def node(config: Config, folder: Path, token: str = "", name: str = "node-1") -> ControlPlane:
    """A node's client, enrolled if it has a token."""
    made = ControlPlane(folder, config.control_plane)
    if token:
        (folder / "enrolment").write_text(token + "\n")
        made.enrol(name, {"cpus": 2})
    return made


@pytest.fixture
def agent(config: Config, bare: Bare, tmp_path: Path) -> ControlPlane:
    return node(config, tmp_path / "agent", enrolment.create_token(Node.Kind.AGENT, bare.plane))


def trusting(agent: ControlPlane, *, certificate: bool = True) -> httpx.Client:
    """A plain client, so that anything can be sent."""
    context = ssl.create_default_context(cafile=str(agent.authority))
    if certificate:
        context.load_cert_chain(str(agent.certificate), str(agent.key))
    return httpx.Client(base_url=agent.base, verify=context, timeout=20)


# Enrolment.


def test_a_node_enrols_and_uses_its_token_up(config: Config, bare: Bare, agent: ControlPlane) -> None:
    row = Node.objects.get()
    assert agent.identity == {"node_id": row.pk, "plane_id": bare.plane.pk, "enrolment": 1}
    assert row.facts == {"cpus": 2}
    assert not (agent.folder / "enrolment").exists()
    for file in (agent.key, agent.certificate, agent.authority, agent.folder / "identity.json"):
        assert file.stat().st_mode & 0o777 == 0o600
    assert agent.folder.stat().st_mode & 0o777 == 0o700
    agent.enrol("node-1", {})
    assert Certificate.objects.count() == 1, "without a token there is nothing to do"
    assert agent.post("/agent/report", {"node": {"healthy": True}}) == {}
    row.refresh_from_db()
    assert row.health == {"healthy": True}


def test_without_a_token_there_is_no_enrolment(config: Config, tmp_path: Path) -> None:
    with pytest.raises(NotEnrolled):
        node(config, tmp_path / "agent").enrol("node-1", {})


def test_a_refused_token_says_why_and_stays(config: Config, bare: Bare, tmp_path: Path) -> None:
    wrong = f"cye_wrong.{authority.Authority().fingerprint}"
    with pytest.raises(Refused, match="token is unknown, used or expired"):
        node(config, tmp_path / "agent", wrong)
    assert (tmp_path / "agent" / "enrolment").exists()
    assert not ControlPlane(tmp_path / "agent", config.control_plane).enrolled


def test_a_node_that_went_down_in_the_middle_of_enrolment_goes_on(agent: ControlPlane) -> None:
    """Its certificate was kept and its token not yet removed."""
    secret = f"cye_used.{authority.Authority().fingerprint}"
    (agent.folder / "enrolment").write_text(secret)
    agent.enrol("node-1", {})
    assert not (agent.folder / "enrolment").exists()
    assert agent.post("/agent/report", {}) == {}


def _foreign(folder: Path, name: str = "") -> authority.Authority:
    """Somebody else's authority; under the name of ours unless it has one of its own."""
    folder.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        if name:
            called = authority._name(name)
            patch.setattr(authority, "_name", lambda common: called)
        authority.ensure(folder)
    return authority.Authority(folder)


@pytest.fixture
def impostor(tmp_path: Path) -> Iterator[tuple[int, list[bytes], authority.Authority]]:
    """Somebody who answers at the control plane's place: (port, what was sent to it, its authority).

    At /authority it shows the true one, which everybody knows, followed by its own.
    """
    signer = _foreign(tmp_path / "foreign", "Somebody")
    certificate, key = signer.issue_server(["localhost"])
    (tmp_path / "key").write_bytes(authority.key_pem(key))
    (tmp_path / "cert").write_text(authority.pem(certificate))
    heard: list[bytes] = []

    async def impostor(scope, receive, send) -> None:  # type: ignore[no-untyped-def]
        heard.append((await receive()).get("body", b""))
        body = (authority.Authority().pem + signer.pem).encode()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body})

    port = processes.free_port()
    files = {"ssl_keyfile": str(tmp_path / "key"), "ssl_certfile": str(tmp_path / "cert")}
    settings = uvicorn.Config(impostor, port=port, lifespan="off", log_level="critical", **files)  # type: ignore[arg-type]
    server = uvicorn.Server(settings)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve()), daemon=True)
    thread.start()
    processes.await_true(lambda: processes.listens(port), "the impostor isn't ready")
    yield port, heard, signer
    server.should_exit = True
    thread.join(processes.SECONDS)


def test_a_foreign_authority_never_sees_the_token(
    bare: Bare, tmp_path: Path, impostor: tuple[int, list[bytes], authority.Authority]
) -> None:
    port, heard, _ = impostor
    folder = tmp_path / "agent"
    made = ControlPlane(folder, f"https://localhost:{port}")
    token = enrolment.create_token(Node.Kind.AGENT, bare.plane)
    (folder / "enrolment").write_text(token)
    with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
        made.enrol("node-1", {})
    assert heard, "it did ask"
    assert not any(token.encode() in body or b"cye_" in body for body in heard)
    assert not made.enrolled


def test_another_authority_than_the_tokens_is_refused(config: Config, bare: Bare, tmp_path: Path) -> None:
    signer = _foreign(tmp_path / "foreign")
    for token in (f"cye_x.{signer.fingerprint}", "cye_x.", "cye_x", ""):
        folder = tmp_path / "agent"
        shutil.rmtree(folder, ignore_errors=True)
        made = ControlPlane(folder, config.control_plane)
        (folder / "enrolment").write_text(token)
        with pytest.raises(Refused, match="isn't the one"):
            made.enrol("node-1", {})


# Certificates at the door.


def test_nobody_without_a_certificate_gets_further_than_enrolment(
    config: Config, agent: ControlPlane
) -> None:
    with trusting(agent, certificate=False) as client:
        assert client.get("/authority").text == authority.Authority().pem
        assert client.post("/enrol", json={}).status_code == 403
        for path in ("/agent/desired", "/builder/next"):
            assert client.get(path).status_code == 401
        for path in ("/renew", "/agent/report", "/agent/acknowledge"):
            assert client.post(path, json={}).status_code == 401
        for path in ("/v2/", "/v2/t1/p1/manifests/x", "/v2/_catalog"):
            assert client.get(path).status_code == 401


def test_bodies_go_on_when_they_are_whole_and_no_larger_than_reports(
    config: Config, agent: ControlPlane
) -> None:
    with trusting(agent, certificate=False) as client:
        endless = client.post("/enrol", content=(b"x" * 2**16 for _ in range(100)))
        assert endless.status_code == 413
        pieces = client.post("/enrol", content=iter([b'{"token":', b'"wrong"}']))
        assert pieces.json()["error"]["id"] == "enrolment-refused"


def test_the_header_that_carries_the_certificate_cant_be_forged(config: Config, agent: ControlPlane) -> None:
    forged = f"Hash={Certificate.objects.get().fingerprint};URI=cytoplane://node/1"
    with trusting(agent, certificate=False) as client:
        for name in ("X-Forwarded-Client-Cert", "x-forwarded-client-cert"):
            for headers in ({name: forged}, [(name, forged), (name, forged)]):
                answer = client.post("/agent/report", json={}, headers=headers)
                assert answer.status_code == 401
                assert client.get("/v2/", headers=headers).status_code == 401
        underscore = client.post("/agent/report", json={}, headers={"x_forwarded_client_cert": forged})
        assert underscore.status_code == 400
    other = trusting(agent)
    with other as client:
        lie = f"Hash={'0' * 64}"
        assert (
            client.post("/agent/report", json={}, headers={"X-Forwarded-Client-Cert": lie}).status_code == 200
        )


def test_certificates_of_others_end_the_connection(
    config: Config, agent: ControlPlane, tmp_path: Path
) -> None:
    """Signed by itself, and signed by another authority with the names of ours."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Cytoplane authority")])
    now = datetime.now(UTC)
    made = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    made = made.serial_number(1).not_valid_before(now - timedelta(1)).not_valid_after(now + timedelta(1))
    own = made.sign(key, hashes.SHA256())
    request = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, hashes.SHA256())
    pem = request.public_bytes(serialization.Encoding.PEM).decode()
    foreign = _foreign(tmp_path / "foreign").sign_node(pem, agent.identity["node_id"])
    (tmp_path / "key").write_bytes(authority.key_pem(key))
    for certificate in (own, foreign):
        (tmp_path / "cert").write_text(authority.pem(certificate))
        context = ssl.create_default_context(cafile=str(agent.authority))
        context.load_cert_chain(str(tmp_path / "cert"), str(tmp_path / "key"))
        with pytest.raises(httpx.HTTPError), httpx.Client(base_url=agent.base, verify=context) as client:
            client.get("/authority")


def test_a_known_client_gets_its_state_and_refusals_as_sentences(
    config: Config, agent: ControlPlane, bare: Bare
) -> None:
    assert agent.get("/agent/desired", generation=0, wait=0) is None
    with pytest.raises(Refused, match="client certificate is missing, unknown, expired or revoked"):
        agent.get("/builder/next")
    enrolment.revoke("somebody", Node.objects.get())
    with pytest.raises(Refused, match="revoked"):
        agent.post("/agent/report", {})


@pytest.mark.parametrize("days", [1, 31])
def test_an_ended_certificate_is_renewed_and_opens_nothing_else(
    config: Config, agent: ControlPlane, days: int
) -> None:
    agent.certificate.write_text(ended(agent.key.read_bytes(), days))
    for path in ("/agent/report", "/agent/acknowledge"):
        with pytest.raises(Refused, match="expired"):
            agent.post(path, {})
    with trusting(agent) as client:
        assert client.get("/agent/desired").status_code == 401
        assert client.get("/v2/").status_code == 401
    agent.renew_if_due()
    assert agent.post("/agent/report", {}) == {}
    fresh = x509.load_pem_x509_certificate(agent.certificate.read_bytes())
    assert Certificate.objects.filter(fingerprint=authority.fingerprint(fresh)).exists()


def test_revoking_ends_a_poll_that_is_open(config: Config, agent: ControlPlane, bare: Bare) -> None:
    answers: list[Refused] = []
    begun = time.monotonic()

    def poll() -> None:
        try:
            agent.get("/agent/desired", generation=0, wait=25)
        except Refused as error:
            answers.append(error)

    thread = threading.Thread(target=poll)
    thread.start()
    time.sleep(0.5)
    assert thread.is_alive(), "there is nothing to tell, so it waits"
    enrolment.revoke("somebody", Node.objects.get())
    thread.join(10)
    assert [answer.status for answer in answers] == [401]
    assert time.monotonic() - begun < 10, "it didn't wait for the poll's own end"


def test_a_server_of_another_name_isnt_spoken_to(config: Config, agent: ControlPlane) -> None:
    """The authority's certificate alone isn't enough: it must be for the host that was dialled."""
    # An address of the same listener that isn't in its certificate.
    other = ControlPlane(agent.folder, config.control_plane.replace("localhost", "127.1"))
    with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED.*mismatch"):
        other.post("/agent/report", {})


def test_a_certificate_is_renewed_only_once_it_is_due(
    config: Config, agent: ControlPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = agent.certificate.read_bytes()
    agent.renew_if_due()
    assert agent.certificate.read_bytes() == before
    monkeypatch.setattr("dataplane.client.RENEW_AFTER", 0)
    agent.renew_if_due()
    assert agent.certificate.read_bytes() != before
    assert agent.post("/agent/report", {}) == {}


# Addresses that mean something else than they say.


def raw(agent: ControlPlane, method: str, target: str, body: bytes = b"", kind: str = "") -> int:
    """The status of a request whose path is sent exactly as it is."""
    import http.client

    context = ssl.create_default_context(cafile=str(agent.authority))
    context.load_cert_chain(str(agent.certificate), str(agent.key))
    connection = http.client.HTTPSConnection(
        "localhost", int(agent.base.rpartition(":")[2]), context=context, timeout=10
    )
    headers = {"Content-Type": kind} if kind else {}
    try:
        connection.request(method, target, body=body or None, headers=headers)
        return connection.getresponse().status
    finally:
        connection.close()


def test_what_the_gateway_asks_itself_cant_be_asked_from_outside(config: Config, agent: ControlPlane) -> None:
    for target in ("/authz/v2/", "//authz/v2/", "/v2/../authz/v2/", "/./authz/v2/", "/authz"):
        assert raw(agent, "GET", target) in (403, 404), target
    for target in ("/v2/%2e%2e%2fagent/report", "/v2%2ft1/p1/manifests/x", "/agent%5creport"):
        assert raw(agent, "POST", target) in (400, 401, 403, 404), target


@pytest.fixture
def pushing(
    config: Config, committed_world: World, tmp_path: Path
) -> Iterator[tuple[ControlPlane, str, str]]:
    """A builder that holds a build of acme's: (client, acme's repository, that of globex with a layer)."""
    world = committed_world
    cell, foreign = world.cell(), world.cell(world.project("shop", "globex"), tenant="globex")
    builder = node(config, tmp_path / "builder", enrolment.create_token(Node.Kind.BUILDER, None), "builder")
    row = Node.objects.get(kind=Node.Kind.BUILDER)
    theirs = world.push(foreign)
    machine.advance(theirs.pk)
    assert actions.claim_build(row) is not None
    upload(builder, actions.image_prefix(foreign))
    Build.objects.update(state=Build.State.DONE, ended_at=timezone.now())
    machine.advance(world.push(cell).pk)
    assert actions.claim_build(row) is not None
    yield builder, actions.image_prefix(cell), actions.image_prefix(foreign)


LAYER = b"a layer of globex"
DIGEST = "sha256:" + hashlib.sha256(LAYER).hexdigest()


def upload(builder: ControlPlane, repository: str) -> None:
    with trusting(builder) as client:
        begun = client.post(f"/v2/{repository}/blobs/uploads/")
        assert begun.status_code == 202, begun.text
        # Whoever dialled another name than this machine's own goes on with that one.
        assert begun.headers["location"].startswith(f"/v2/{repository}/blobs/uploads/")
        done = client.put(f"{begun.headers['location']}&digest={DIGEST}", content=LAYER)
        assert done.status_code == 201, done.text


def test_layers_stay_within_their_project(config: Config, pushing: tuple[ControlPlane, str, str]) -> None:
    builder, own, theirs = pushing
    with trusting(builder) as client:
        assert client.get(f"/v2/{theirs}/blobs/{DIGEST}").status_code == 404
        mount = {"mount": DIGEST, "from": theirs}
        assert client.post(f"/v2/{own}/blobs/uploads/", params=mount).status_code == 404
        assert client.post(f"/v2/{own}/blobs/uploads/", data=mount).status_code == 404
        assert client.get(f"/v2/{own}/blobs/{DIGEST}").status_code == 404
        assert client.get("/v2/_catalog").status_code == 404
    for target in (
        f"/v2/{own}/../../{theirs}/blobs/{DIGEST}",
        f"/v2/{own}/%2e%2e/%2e%2e/{theirs}/blobs/{DIGEST}",
    ):
        assert raw(builder, "GET", target) in (400, 403, 404), target
    upload(builder, own)
    with trusting(builder) as client:
        assert client.get(f"/v2/{own}/blobs/{DIGEST}").content == LAYER
        assert client.delete(f"/v2/{own}/blobs/{DIGEST}").status_code == 404
    # The registry itself would have done it, asked either way.
    transport = httpx.HTTPTransport(uds=str(config.registry_socket))
    with httpx.Client(transport=transport, base_url="http://registry") as registry:
        assert registry.post("/v2/t1/p0/blobs/uploads/", params=mount).status_code == 201
        assert registry.post("/v2/t1/p1/blobs/uploads/", data=mount).status_code == 201
