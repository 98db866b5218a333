"""Asking upstream servers: what can't be guessed, what counts as an answer, who is asked next."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator

import pytest
from dnslib import QTYPE, RCODE, DNSRecord

from dataplane.resolver import upstream as module
from dataplane.resolver.upstream import NoAnswer, Upstream
from tests.dataplane.resolver.nameserver import NameServer

NAME = "api.some-long-name.example.test"


@pytest.fixture
def server() -> Iterator[NameServer]:
    made = NameServer({NAME: (60, ["198.51.100.7", "2001:db8::7"])}).open()
    yield made
    made.close()


def upstream(server: NameServer, *servers: str) -> Upstream:
    made = Upstream(server.port)
    made.servers = servers or (server.address,)
    return made


def ask(made: Upstream, name: str = NAME, kind: int = QTYPE.A) -> DNSRecord:
    return asyncio.run(made.ask(name, kind))


def addresses(record: DNSRecord) -> list[str]:
    return [str(row.rdata) for row in record.rr]


def test_every_question_has_a_port_an_id_and_a_spelling_of_its_own(server: NameServer) -> None:
    made = upstream(server)
    for _ in range(40):
        assert addresses(ask(made)) == ["198.51.100.7"]
    assert len({each.id for each in server.asked}) > 35
    assert len({each.port for each in server.asked}) > 35
    assert len({each.name for each in server.asked}) > 35
    assert set(server.names()) == {NAME}
    assert not any(each.tcp for each in server.asked)
    assert all(each.edns for each in server.asked)


def _other_id(query: DNSRecord, reply: DNSRecord) -> bytes:
    reply.header.id = query.header.id ^ 1
    return bytes(reply.pack())


def _other_spelling(query: DNSRecord, reply: DNSRecord) -> bytes:
    lower = DNSRecord.question(str(query.q.qname).swapcase()).q
    reply.questions = [lower]
    return bytes(reply.pack())


def _other_question(query: DNSRecord, reply: DNSRecord) -> bytes:
    reply.questions = [DNSRecord.question("other.test").q]
    return bytes(reply.pack())


def _no_response(query: DNSRecord, reply: DNSRecord) -> bytes:
    reply.header.qr = 0
    return bytes(reply.pack())


def _cut(query: DNSRecord, reply: DNSRecord) -> bytes:
    reply.rr = []
    reply.header.tc = 1
    return bytes(reply.pack())


@pytest.mark.parametrize(
    "spoil",
    [
        _other_id,
        _other_spelling,
        _other_question,
        _no_response,
        _cut,
        lambda q, r: b"\x00" * 7,
        lambda q, r: b"",
    ],
)
def test_what_isnt_the_answer_is_a_reason_to_ask_over_tcp(server: NameServer, spoil) -> None:  # type: ignore[no-untyped-def]
    server.spoil = spoil
    assert addresses(ask(upstream(server))) == ["198.51.100.7"]
    assert [each.tcp for each in server.asked] == [False, True]


@pytest.mark.parametrize("number", [module.MOST_RECORDS, module.MOST_RECORDS + 1, 600])
def test_who_owns_a_name_takes_nobodys_time_with_what_it_answers(server: NameServer, number: int) -> None:
    """Over TCP an answer may have 64 KiB, which take a third of a second to read."""
    server.zone[NAME] = (60, [f"198.51.{100 + n // 200}.{n % 200 + 1}" for n in range(number)])
    if number > module.MOST_RECORDS:
        with pytest.raises(NoAnswer, match="gives answers that don't fit"):
            ask(upstream(server))
    else:
        assert len(addresses(ask(upstream(server)))) == number


def test_who_never_heard_of_edns_is_asked_without(server: NameServer) -> None:
    def spoil(query: DNSRecord, reply: DNSRecord) -> bytes:
        if any(row.rtype == QTYPE.OPT for row in query.ar):
            reply.header.rcode, reply.rr = RCODE.FORMERR, []
        return bytes(reply.pack())

    server.spoil = spoil
    assert addresses(ask(upstream(server))) == ["198.51.100.7"]
    assert [each.edns for each in server.asked] == [True, False]


def test_a_server_that_fails_or_is_silent_is_passed_over_and_comes_last(
    server: NameServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "UDP_SECONDS", 0.1)
    failing = NameServer(spoil=lambda query, reply: _failed(reply)).open("127.0.0.2", server.port)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent, contextlib.closing(failing):
        silent.bind(("127.0.0.3", server.port))
        made = upstream(server, "127.0.0.2", "127.0.0.3", server.address)
        assert addresses(ask(made)) == ["198.51.100.7"]
        assert len(failing.asked) == 1
        assert addresses(ask(made)) == ["198.51.100.7"]
        assert len(failing.asked) == 1, "it rests"
        assert made.answered_at > made.failed_at


def _failed(reply: DNSRecord) -> bytes:
    reply.header.rcode, reply.rr = RCODE.SERVFAIL, []
    return bytes(reply.pack())


def test_that_no_server_answers_is_said_with_what_each_did(
    server: NameServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "UDP_SECONDS", 0.05)
    server.spoil = lambda query, reply: _failed(reply)
    made = upstream(server, server.address, "127.0.0.9")
    with pytest.raises(NoAnswer) as caught:
        ask(made)
    assert "127.0.0.1 says SERVFAIL" in str(caught.value)
    assert "127.0.0.9" in str(caught.value)
    assert made.failed_at > made.answered_at
    with pytest.raises(NoAnswer, match="no upstream server"):
        ask(Upstream())


def test_there_is_an_end_to_patience(server: NameServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ALL_SECONDS", 0.2)
    server.spoil = lambda query, reply: None
    with pytest.raises(NoAnswer):
        ask(upstream(server))


def test_that_there_is_no_such_name_is_an_answer(server: NameServer) -> None:
    record = ask(upstream(server), "nothing.test")
    assert (record.header.rcode, record.rr) == (RCODE.NXDOMAIN, [])
