"""What isn't a platform's answer becomes a sentence, an id and one exit code."""

from __future__ import annotations

import http.server
import json
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from cli import errors
from tests.platform.cli.conftest import Cyto


@contextmanager
def served(status: int, body: str, tls: ssl.SSLContext | None = None, **headers: str) -> Iterator[str]:
    """A server that says the same to everybody."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body.encode())))
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_: object) -> None: ...

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    if tls:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http{'s' if tls else ''}://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join(10)
        server.server_close()


ERROR = json.dumps(
    {"error": {"id": "some-id", "message": "A sentence.", "next": "Do it.", "request_id": "r1"}}
)


@pytest.mark.parametrize(
    ("status", "body", "code", "error"),
    [
        (200, "<html>", errors.UNREACHABLE, "unexpected-answer"),
        (404, "<html>", errors.UNREACHABLE, "unexpected-answer"),
        (500, "<html>", errors.UNREACHABLE, "unexpected-answer"),
        (502, "Bad gateway", errors.UNREACHABLE, "unreachable"),
        (503, "", errors.UNREACHABLE, "unreachable"),
        (404, "[]", errors.UNREACHABLE, "unexpected-answer"),
        (404, '{"error": "text"}', errors.UNREACHABLE, "unexpected-answer"),
        (400, ERROR, errors.USAGE, "some-id"),
        (401, ERROR, errors.NOT_SIGNED_IN, "some-id"),
        (403, ERROR, errors.FORBIDDEN, "some-id"),
        (404, ERROR, errors.NOT_FOUND, "some-id"),
        (409, ERROR, errors.CONFLICT, "some-id"),
        (413, ERROR, errors.USAGE, "some-id"),
        (422, ERROR, errors.USAGE, "some-id"),
        (429, ERROR, errors.TOO_MANY, "some-id"),
        (500, ERROR, errors.PLATFORM, "some-id"),
        (503, ERROR, errors.UNREACHABLE, "some-id"),
    ],
)
def test_each_class_of_answers_has_its_exit_code(
    cyto: Cyto, monkeypatch: pytest.MonkeyPatch, status: int, body: str, code: int, error: str
) -> None:
    with served(status, body) as url:
        monkeypatch.setenv("CYTO_URL", url)
        ran = cyto("whoami")
    assert (ran.code, ran.error, ran.out) == (code, error, "")
    if error == "some-id":
        assert "A sentence." in ran.err
        assert "request r1" in ran.err


def test_a_redirection_is_named_and_not_followed_with_the_token(
    cyto: Cyto, monkeypatch: pytest.MonkeyPatch
) -> None:
    with served(301, "", Location="https://elsewhere.example.org/api/v1/me") as url:
        monkeypatch.setenv("CYTO_URL", url)
        monkeypatch.setenv("CYTO_TOKEN", "cy_secret")
        ran = cyto("whoami")
    assert ran.code == errors.UNREACHABLE
    assert "to https://elsewhere.example.org." in ran.err
    assert "cy_secret" not in ran.err


def test_nothing_listens(cyto: Cyto) -> None:
    ran = cyto("whoami", "--json")
    assert (ran.code, ran.json["error"]["id"]) == (errors.UNREACHABLE, "unreachable")
    assert "Errno" not in ran.err


def test_a_name_that_isnt_known(cyto: Cyto, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CYTO_URL", "http://nothing.invalid")
    assert cyto("whoami").code == errors.UNREACHABLE


def test_a_connection_that_ends_without_an_answer(cyto: Cyto, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=lambda: listener.accept()[0].close())
        thread.start()
        monkeypatch.setenv("CYTO_URL", f"http://127.0.0.1:{listener.getsockname()[1]}")
        ran = cyto("whoami")
        thread.join(10)
    assert (ran.code, ran.error) == (errors.UNREACHABLE, "unreachable")


def test_tls_where_there_is_none(cyto: Cyto, monkeypatch: pytest.MonkeyPatch) -> None:
    with served(200, "{}") as url:
        monkeypatch.setenv("CYTO_URL", url.replace("http:", "https:"))
        ran = cyto("whoami")
    assert (ran.code, ran.error) == (errors.UNREACHABLE, "tls")
    assert "doesn't speak TLS" in ran.err


def test_a_certificate_that_nobody_vouches_for(
    cyto: Cyto, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("tls")
    files = _self_signed(folder)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*files)
    answer = '{"email": "a@example.org", "name": "", "platform_admin": false, "tenants": []}'
    with served(200, answer, context) as url:
        monkeypatch.setenv("CYTO_URL", url)
        ran = cyto("whoami")
        assert (ran.code, ran.error) == (errors.UNREACHABLE, "tls")
        assert "self-signed certificate" in ran.err
        monkeypatch.setenv("SSL_CERT_FILE", files[0])
        assert cyto("whoami").code == 0


def _self_signed(folder) -> tuple[str, str]:  # type: ignore[no-untyped-def]
    """Files of a certificate for 127.0.0.1 and its key."""
    import ipaddress
    from datetime import UTC, datetime, timedelta

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False
        )
        .sign(key, hashes.SHA256())
    )
    paths = folder / "certificate.pem", folder / "key.pem"
    paths[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return str(paths[0]), str(paths[1])


@pytest.mark.parametrize(
    "url", ["localhost:8000", "ftp://a", "http://", "http://a/b", "http://a b", "http://a:99999", "http://[x"]
)
def test_what_isnt_an_address_is_refused_before_anything_is_sent(
    cyto: Cyto, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.setenv("CYTO_URL", url)
    ran = cyto("whoami")
    assert (ran.code, ran.error) == (errors.USAGE, "usage")


def test_a_token_that_cant_be_one_is_refused(cyto: Cyto, monkeypatch: pytest.MonkeyPatch) -> None:
    for value in ("cy_ä", "cy_a\nX: y"):
        monkeypatch.setenv("CYTO_TOKEN", value)
        assert cyto("whoami").error == "usage"
