"""Chains of aliases: what of an answer counts."""

from __future__ import annotations

import pytest
from dnslib import QTYPE, RCODE, RR, DNSHeader, DNSQuestion, DNSRecord

from dataplane.resolver.lookups import (
    MOST_ADDRESSES,
    NEGATIVE_CEILING,
    NEGATIVE_FLOOR,
    NEGATIVE_USUAL,
    TTL_CEILING,
    TTL_FLOOR,
    Chain,
    Found,
)

NAME = "api.example.test"


def record(zone: str, rcode: int = RCODE.NOERROR, authority: str = "") -> DNSRecord:
    made = DNSRecord(DNSHeader(qr=1, rcode=rcode), q=DNSQuestion(NAME))
    for row in RR.fromZone(zone):
        made.add_answer(row)
    for row in RR.fromZone(authority):
        made.add_auth(row)
    return made


def take(zone: str, kind: int = QTYPE.A, **more) -> Found | None:  # type: ignore[no-untyped-def]
    return Chain(NAME, kind).take(record(zone, **more))


def test_the_end_of_a_chain_counts_however_it_is_spelled_and_ordered() -> None:
    found = take(
        "a.cdn.test. 300 A 198.51.100.1\nAPI.Example.Test. 60 CNAME edge.cdn.test.\n"
        "a.cdn.test. 300 A 198.51.100.2\nEDGE.cdn.test. 600 CNAME a.cdn.test."
    )
    assert found == Found(
        ((NAME, "edge.cdn.test"), ("edge.cdn.test", "a.cdn.test")), ("198.51.100.1", "198.51.100.2"), 60
    )


def test_what_isnt_in_the_chain_doesnt_count() -> None:
    found = take(
        "api.example.test. 60 A 198.51.100.1\nother.test. 60 A 198.51.100.9\nexample.test. 60 A 198.51.100.8\n"
        "api.example.test. 60 AAAA 2001:db8::1"
    )
    assert found == Found((), ("198.51.100.1",), 60)
    assert take("other.test. 60 A 198.51.100.9") == Found((), (), NEGATIVE_USUAL)


def test_addresses_have_one_form() -> None:
    found = take("api.example.test. 60 AAAA 2001:0db8:0:0:0:0:0:1", QTYPE.AAAA)
    assert found is not None
    assert found.addresses == ("2001:db8::1",)


@pytest.mark.parametrize(("ttl", "kept"), [(0, TTL_FLOOR), (11, 11), (86400, TTL_CEILING)])
def test_times_have_bounds(ttl: int, kept: int) -> None:
    found = take(f"api.example.test. {ttl} A 198.51.100.1")
    assert found is not None
    assert found.ttl == kept


@pytest.mark.parametrize(("ttl", "minimum", "kept"), [(60, 90, 60), (90, 60, 60), (0, 60, NEGATIVE_FLOOR)])
@pytest.mark.parametrize("rcode", [RCODE.NXDOMAIN, RCODE.NOERROR])
def test_that_there_is_nothing_is_kept_as_long_as_the_zone_says(
    ttl: int, minimum: int, kept: int, rcode: int
) -> None:
    authority = f"example.test. {ttl} SOA ns.test. host.test. 1 3600 600 86400 {minimum}"
    assert take("", rcode=rcode, authority=authority) == Found((), (), kept, rcode == RCODE.NOERROR)
    day = "example.test. 86400 SOA ns.test. host.test. 1 3600 600 86400 86400"
    found = take("", rcode=rcode, authority=day)
    assert found is not None
    assert found.ttl == NEGATIVE_CEILING


def test_an_alias_without_its_end_is_asked_for() -> None:
    chain = Chain(NAME, QTYPE.A)
    assert chain.take(record("api.example.test. 60 CNAME a.cdn.test.")) is None
    assert chain.last == "a.cdn.test"
    assert chain.take(record("a.cdn.test. 30 CNAME b.cdn.test.")) is None
    found = chain.take(record("b.cdn.test. 90 A 198.51.100.1"))
    assert found == Found(((NAME, "a.cdn.test"), ("a.cdn.test", "b.cdn.test")), ("198.51.100.1",), 30)


def test_circles_and_endless_chains_lead_nowhere() -> None:
    circle = "api.example.test. 60 CNAME b.test.\nb.test. 60 CNAME api.example.test."
    endless = "api.example.test. 60 CNAME n0.test.\n" + "\n".join(
        f"n{n}.test. 60 CNAME n{n + 1}.test." for n in range(40)
    )
    for zone in (circle, endless, "api.example.test. 60 CNAME api.example.test."):
        assert take(zone) == Found((), (), NEGATIVE_USUAL)


def test_more_addresses_than_fit_are_left_out() -> None:
    found = take("\n".join(f"api.example.test. 60 A 198.51.100.{n}" for n in range(200)))
    assert found is not None
    assert len(found.addresses) == MOST_ADDRESSES
