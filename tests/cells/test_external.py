"""Destinations outside: which names may be declared, and which of the two kinds a name is."""

from __future__ import annotations

import pytest

from cells.specification import External, SpecificationError, parse, validate

DETECTED = {".": "dockerfile"}


def declared(external: str, domain: str = "localhost") -> External:
    text = f"components: {{web: {{connections: [{{external: {external}, as: X}}]}}}}"
    files = {"cytoplane.yaml": text}
    found = parse(files, project="shop", detected=DETECTED, domain=domain)
    # What a builder says is read by the same rules.
    assert validate(found.as_dict(), project="shop", domain=domain) == found
    (connection,) = found.components["web"].connections
    assert connection.external is not None
    return connection.external


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{host: api.example.com, port: 443}", External(443, "tcp", host="api.example.com")),
        ("{host: API.Example.COM, port: 1}", External(1, "tcp", host="api.example.com")),
        ("{host: time.example.com, port: 123, protocol: udp}", External(123, "udp", host="time.example.com")),
        ("{host: '*.example.com', port: 443}", External(443, "tcp", host="*.example.com")),
        ("{host: '*.s3.example.com', port: 65535}", External(65535, "tcp", host="*.s3.example.com")),
        ("{host: xn--bcher-kva.example, port: 443}", External(443, "tcp", host="xn--bcher-kva.example")),
        ("{host: 4.example.com, port: 443}", External(443, "tcp", host="4.example.com")),
        # A domain that only ends with the same letters is somebody else's.
        ("{host: shop.notlocalhost.com, port: 443}", External(443, "tcp", host="shop.notlocalhost.com")),
    ],
)
def test_a_name_of_dns_has_port_and_protocol(text: str, expected: External) -> None:
    found = declared(text)
    assert found == expected
    assert found.name == expected.host
    assert not found.public


@pytest.mark.parametrize(
    "text", ["{host: shop.acme.localhost}", "{host: Shop.Acme.Localhost, protocol: http}"]
)
def test_a_host_below_the_applications_domain_is_the_platforms(text: str) -> None:
    found = declared(text)
    assert found == External(80, "http", host="shop.acme.localhost")
    assert found.public
    assert found.name == ""


def test_the_applications_domain_decides_which_one_a_name_is() -> None:
    assert declared("{host: shop.acme.apps.example.com, port: 80}", "apps.example.com").public
    assert declared("{host: shop.acme.apps.example.com, port: 80}", "apps.example.org").name
    assert declared("{host: acme.localhost, port: 80}", "apps.example.org").name == "acme.localhost"


@pytest.mark.parametrize(
    ("host", "word"),
    [
        ("'*'", "every name"),
        ("'*.'", "every name"),
        ("'*.*'", "every name"),
        ("'*.com'", "top-level domain"),
        ("'a.*.example.com'", "whole first label"),
        ("'*.*.example.com'", "whole first label"),
        ("'a*.example.com'", "whole first label"),
        ("'**.example.com'", "whole first label"),
        ("'*example.com'", "whole first label"),
        ("'*.acme.localhost'", "this platform"),
        ("'*.localhost'", "this platform"),
        ("localhost", "this platform"),
        ("api.cy.internal", "inside the platform"),
        ("'*.shop.cy.internal'", "inside the platform"),
        ("api", "whole name"),
        ("192.0.2.1", "an address"),
        ("127.1", "an address"),
        ("'2130706433'", "an address"),
        ("'2001:db8::1'", "an address"),
        ("'[2001:db8::1]'", "an address"),
        ("'*.192.0.2.1'", "an address"),
        ("a.0x7f000001", "begin with a letter"),
        ("example.com.", "host name"),
        (".example.com", "host name"),
        ("a..example.com", "host name"),
        ("-a.example.com", "host name"),
        ("a_b.example.com", "host name"),
        ("bücher.example", "host name"),
        ("https://example.com", "host name"),
        ("example.com:443", "host name"),
        ("a" * 64 + ".example.com", "host name"),
        ("a." * 126 + "com", "host name"),
        ("null", "whole name"),
        ("[a.example.com]", "host name"),
    ],
)
def test_a_name_that_cant_be_declared_is_told_why(host: str, word: str) -> None:
    with pytest.raises(SpecificationError) as caught:
        declared(f"{{host: {host}, port: 443}}")
    assert word in caught.value.message
    assert caught.value.where.endswith("external.host")
    assert caught.value.hint


@pytest.mark.parametrize("port", ["0", "65536", "x", "null", "1.5", "true"])
def test_a_port_is_a_port(port: str) -> None:
    with pytest.raises(SpecificationError) as caught:
        declared(f"{{host: api.example.com, port: {port}}}")
    assert caught.value.where.endswith("external.port")


def test_a_builder_that_lies_about_the_kind_isnt_believed() -> None:
    """Through the door a name of DNS would get a port of the platform's; it was never declared so."""
    files = {
        "cytoplane.yaml": "components: {web: {connections: [{external: {host: a.example.com, port: 80}}]}}"
    }
    document = parse(files, project="shop", detected=DETECTED).as_dict()
    document["components"]["web"]["connections"][0]["external"]["protocol"] = "http"
    with pytest.raises(SpecificationError):
        validate(document, project="shop")
