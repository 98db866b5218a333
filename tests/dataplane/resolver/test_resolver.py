"""The resolver: answers each asker from its own names, and nothing that is sent to it breaks it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from dnslib import EDNS0, QTYPE, RCODE, RR, A, DNSHeader, DNSQuestion, DNSRecord
from hypothesis import given, settings
from hypothesis import strategies as st

from dataplane.resolver import pace, replies, server
from dataplane.resolver.denials import Denials
from dataplane.resolver.server import answer, serve
from dataplane.resolver.table import Table, _Content
from tests.dataplane import processes

WEB, OTHER, STRANGER = "127.0.0.1", "127.0.0.2", "127.0.0.9"
NAMES = {"300": {"api": ["10.65.0.9", "fd00::9"], "api.example.org": ["10.65.0.2", "fd00::2"]}, "301": {}}


def write(file: Path, document: Any) -> None:
    """As the agent does: the whole file at once."""
    temporary = file.with_name("new")
    temporary.write_text(document if isinstance(document, str) else json.dumps(document))
    temporary.rename(file)


def usual(names: Any = None) -> dict[str, Any]:
    return {
        "askers": {WEB: 300, OTHER: 301, "fd00::5": 300, "::1": 300},
        "names": NAMES if names is None else names,
    }


@pytest.fixture
def file(tmp_path: Path) -> Path:
    write(tmp_path / "table.json", usual())
    return tmp_path / "table.json"


@pytest.fixture
def table(file: Path) -> Table:
    made = Table(file)
    made.refresh()
    return made


def asked(table: Table, name: str, kind: str = "A", asker: str = WEB, edns: bool = False) -> DNSRecord:
    query = DNSRecord.question(name, kind)
    if edns:
        query.add_ar(EDNS0(udp_len=1232))
    data = answer(table, asker, query.pack())
    assert data is not None
    found = DNSRecord.parse(data)
    assert (found.header.id, found.header.qr, str(found.q.qname)) == (
        query.header.id,
        1,
        f"{name.rstrip('.')}.",
    )
    return found


def addresses(record: DNSRecord) -> list[str]:
    return [str(entry.rdata) for entry in record.rr]


@pytest.mark.parametrize("name", ["api", "API", "api.", "api.cy.internal", "Api.Cy.Internal."])
def test_a_name_is_found_however_it_is_written(table: Table, name: str) -> None:
    assert addresses(asked(table, name)) == ["10.65.0.9"]
    assert addresses(asked(table, name, "AAAA")) == ["fd00::9"]
    assert sorted(addresses(asked(table, name, "ANY"))) == ["10.65.0.9", "fd00::9"]


def test_other_types_of_a_known_name_are_empty_and_no_error(table: Table) -> None:
    for kind in ("TXT", "MX", "SOA", "SRV", "HTTPS"):
        found = asked(table, "api", kind)
        assert (found.header.rcode, found.rr) == (RCODE.NOERROR, [])


def test_what_an_asker_may_not_reach_doesnt_exist_for_it(table: Table) -> None:
    for asker, name in ((OTHER, "api"), (OTHER, "api.example.org"), (WEB, "nothing"), (WEB, "example.org")):
        found = asked(table, name, asker=asker)
        assert (found.header.rcode, found.rr) == (RCODE.NXDOMAIN, [])


def test_nobody_is_told_that_it_is_nobody(table: Table) -> None:
    for asker in (STRANGER, "fd00::1", "10.65.0.9"):
        assert asked(table, "api", asker=asker).header.rcode == RCODE.REFUSED


@pytest.mark.parametrize("asker", [f"::ffff:{WEB}", "fd00::5%eth0", "fd00:0:0::5"])
def test_askers_are_known_however_their_address_is_written(table: Table, asker: str) -> None:
    assert addresses(asked(table, "api", asker=asker)) == ["10.65.0.9"]


def test_with_edns_a_refusal_says_why(table: Table) -> None:
    for asker, name, sentence in (
        (WEB, "nothing", b"no declared connection reaches this name"),
        (STRANGER, "api", b"unknown asker"),
    ):
        found = asked(table, name, asker=asker, edns=True)
        (option,) = found.ar[0].rdata
        assert (option.code, option.data) == (15, struct.pack("!H", 18) + sentence)
        assert not asked(table, name, asker=asker).ar, "who doesn't speak EDNS isn't answered in it"
    assert asked(table, "api", edns=True).ar[0].rdata == []


def test_a_table_is_replaced_while_it_is_used(table: Table, file: Path) -> None:
    write(file, usual({"300": {"api": ["10.65.0.77"]}, "301": {"api": ["10.65.0.78"]}}))
    table.refresh()
    assert addresses(asked(table, "api")) == ["10.65.0.77"]
    assert addresses(asked(table, "api", asker=OTHER)) == ["10.65.0.78"]


@pytest.mark.parametrize(
    "damaged",
    [
        "",
        "{",
        "[]",
        "null",
        "{}",
        '{"askers": {}}',
        '{"askers": [], "names": {}}',
        '{"askers": {}, "names": []}',
    ]
    + [
        '{"askers": {"127.0.0.1": "x"}, "names": {}}',
        '{"askers": {"127.0.0.1": 9}, "names": {"9": 3}}',
        "[" * 100000,
    ]
    + ['{"askers": {"127.0.0.1": 9}, "names": {"9": {"api": 3}}}', "\x00"],
)
def test_a_damaged_table_keeps_the_last_one_whole(table: Table, file: Path, damaged: str) -> None:
    write(file, damaged)
    table.refresh()
    assert addresses(asked(table, "api")) == ["10.65.0.9"]
    write(file, usual({"300": {}}))
    table.refresh()
    assert asked(table, "api").header.rcode == RCODE.NXDOMAIN


def test_a_table_that_may_be_read_only_later_is_read_then(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The agent replaces the file before it gives it to the resolver's group."""
    table = Table(file)
    with monkeypatch.context() as closed:
        closed.setattr(Path, "read_bytes", lambda path: (_ for _ in ()).throw(PermissionError(path)))
        table.refresh()
    assert asked(table, "api").header.rcode == RCODE.REFUSED
    table.refresh()
    assert addresses(asked(table, "api")) == ["10.65.0.9"]


def test_a_table_that_is_gone_keeps_the_last_one(table: Table, file: Path) -> None:
    file.unlink()
    table.refresh()
    assert addresses(asked(table, "api")) == ["10.65.0.9"]


# Whatever is sent.


def _table() -> Table:
    made = Table(Path("/nonexistent"))
    made._content = _Content({WEB: "300"}, NAMES)
    return made


def _fits(data: bytes | None, query: bytes) -> None:
    if data is None:
        return
    found = DNSRecord.parse(data)
    assert data[:2] == query[:2]
    assert found.header.qr == 1
    assert all(entry.rtype in (QTYPE.A, QTYPE.AAAA) for entry in found.rr)


@settings(max_examples=300, deadline=None)
@given(data=st.binary(max_size=300))
def test_no_bytes_break_it(data: bytes) -> None:
    _fits(answer(_table(), WEB, data, Denials(Path("/nonexistent"))), data)


@settings(max_examples=400, deadline=None)
@given(
    name=st.sampled_from(["api", "x" * 63, "a.b.c.d.cy.internal", ""]),
    edns=st.booleans(),
    changes=st.lists(st.tuples(st.integers(0, 80), st.binary(min_size=0, max_size=3)), max_size=6),
    cut=st.integers(0, 90),
)
def test_no_query_that_is_nearly_one_breaks_it(name: str, edns: bool, changes: list, cut: int) -> None:
    query = DNSRecord.question(name)
    if edns:
        query.add_ar(EDNS0(udp_len=512))
    data = bytearray(query.pack())
    for place, value in changes:
        data[place : place + len(value)] = value
    del data[cut + 12 :]
    _fits(answer(_table(), WEB, bytes(data), Denials(Path("/nonexistent"))), bytes(data))


def test_what_isnt_one_question_gets_no_answer(table: Table) -> None:
    response = DNSRecord(DNSHeader(qr=1), q=DNSQuestion("api"))
    none = DNSRecord(DNSHeader())
    two = DNSRecord(DNSHeader())
    two.add_question(DNSQuestion("api"), DNSQuestion("web"))
    # A name that points at itself.
    loop = struct.pack("!HHHHHH", 1, 0x0100, 1, 0, 0, 0) + b"\xc0\x0c\x00\x01\x00\x01"
    for data in (response.pack(), none.pack(), two.pack(), loop, b"", b"\x00" * 11):
        assert answer(table, WEB, data) is None


@pytest.mark.parametrize("shape", ["records", "questions", "options"])
def test_nobody_waits_for_who_sends_a_large_question(table: Table, shape: str) -> None:
    """One message of 64 KiB would take a third of a second of everybody's."""
    name = b"\x01a" * 126 + b"\x00"
    one = name + b"\x00\x01\x00\x01"
    header = "!HHHHHH"
    if shape == "records":
        record = b"\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x01\x00\x04\x01\x02\x03\x04"
        data = struct.pack(header, 1, 0x100, 1, 4000, 0, 0) + one + record * 4000
    elif shape == "questions":
        data = struct.pack(header, 1, 0x100, 250, 0, 0, 0) + one * 250
    else:
        option = b"\x00\x00\x29\x04\xd0\x00\x00\x00\x00" + struct.pack("!H", 64000)
        data = struct.pack(header, 1, 0x100, 1, 0, 0, 1) + one + option + bytes(64000)
    begun = time.process_time()
    assert answer(table, WEB, data) is None
    assert answer(table, WEB, data[: replies.LONGEST_QUERY]) is None
    assert time.process_time() - begun < 0.05


def test_other_operations_than_queries_arent_implemented(table: Table) -> None:
    for operation in (1, 2, 4, 5):
        update = DNSRecord(DNSHeader(opcode=operation), q=DNSQuestion("api"))
        update.add_answer(RR("api", rdata=A("192.0.2.1")))
        data = answer(table, WEB, update.pack())
        assert data is not None
        assert DNSRecord.parse(data).header.rcode == RCODE.NOTIMP


# Sockets.


@pytest.fixture
def port(file: Path, tmp_path: Path) -> Iterator[int]:
    """A resolver on the loopback, IPv4 and IPv6, UDP and TCP."""
    number = processes.free_port()
    loop = asyncio.new_event_loop()
    task = loop.create_task(serve(Table(file), Denials(tmp_path / "denials.sock"), [WEB, "::1"], number))

    def run() -> None:
        with contextlib.suppress(asyncio.CancelledError):
            loop.run_until_complete(task)
        for other in asyncio.all_tasks(loop):
            other.cancel()
        loop.run_until_complete(asyncio.sleep(0))
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    processes.await_true(lambda: processes.listens(number, "::1"), "the resolver isn't ready")
    yield number
    loop.call_soon_threadsafe(task.cancel)
    thread.join(10)


def udp(port: int, query: bytes, address: str = WEB, source: str = "") -> bytes:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as client:
        client.settimeout(5)
        if source:
            client.bind((source, 0))
        client.sendto(query, (address, port))
        return client.recv(4096)


def receive(client: socket.socket) -> bytes:
    size = int.from_bytes(client.recv(2, socket.MSG_WAITALL))
    return client.recv(size, socket.MSG_WAITALL)


def test_both_protocols_answer_over_both_families(port: int) -> None:
    query = DNSRecord.question("api").pack()
    for address in (WEB, "::1"):
        assert addresses(DNSRecord.parse(udp(port, query, address))) == ["10.65.0.9"]
        with socket.create_connection((address, port), timeout=5) as client:
            for _ in range(3):
                client.sendall(struct.pack("!H", len(query)) + query)
                assert addresses(DNSRecord.parse(receive(client))) == ["10.65.0.9"]
    assert DNSRecord.parse(udp(port, query, source=OTHER)).header.rcode == RCODE.NXDOMAIN
    assert DNSRecord.parse(udp(port, query, source=STRANGER)).header.rcode == RCODE.REFUSED


def test_a_running_resolver_takes_a_new_table(port: int, file: Path) -> None:
    query = DNSRecord.question("api").pack()
    assert addresses(DNSRecord.parse(udp(port, query))) == ["10.65.0.9"]
    write(file, "{")
    assert addresses(DNSRecord.parse(udp(port, query))) == ["10.65.0.9"]
    write(file, usual({"300": {"api": ["10.65.0.77"]}}))
    assert addresses(DNSRecord.parse(udp(port, query))) == ["10.65.0.77"]


def test_what_is_sent_in_pieces_or_in_vain_disturbs_nobody(port: int) -> None:
    query = DNSRecord.question("api").pack()
    whole = struct.pack("!H", len(query)) + query
    with socket.create_connection((WEB, port), timeout=5) as slow:
        slow.sendall(whole[:1])
        for junk in (b"\x00\x00", b"\xff\xff" + b"x" * 100, b"\x00\x05hello"):
            with socket.create_connection((WEB, port), timeout=5) as other:
                other.sendall(junk)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            for junk in (b"", b"x", os.urandom(200), b"\x00" * 1200):
                client.sendto(junk, (WEB, port))
        assert addresses(DNSRecord.parse(udp(port, query))) == ["10.65.0.9"]
        for place in range(1, len(whole)):
            slow.sendall(whole[place : place + 1])
        assert addresses(DNSRecord.parse(receive(slow))) == ["10.65.0.9"]


def test_one_asker_cant_take_all_the_time(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace, "RATE", 0.001)
    monkeypatch.setattr(pace, "BURST", 3)
    query = DNSRecord.question("api").pack()
    whole = struct.pack("!H", len(query)) + query
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(0.5)
        for _ in range(10):
            client.sendto(query, (WEB, port))
        for _ in range(3):
            client.recv(4096)
        with pytest.raises(TimeoutError):
            client.recv(4096)
    with socket.create_connection((WEB, port), timeout=5) as client:
        client.sendall(whole)
        assert client.recv(2) == b""
    assert DNSRecord.parse(udp(port, query, source=OTHER)).header.rcode == RCODE.NXDOMAIN


def test_one_asker_cant_take_all_connections(port: int) -> None:
    query = DNSRecord.question("api").pack()
    whole = struct.pack("!H", len(query)) + query

    def answered(client: socket.socket) -> bool:
        client.sendall(whole)
        try:
            return client.recv(2) != b""
        except ConnectionError:
            return False

    with contextlib.ExitStack() as stack:
        held = [
            stack.enter_context(socket.create_connection((WEB, port), timeout=5))
            for _ in range(server._MOST_TCP_EACH)
        ]
        assert all(map(answered, held))
        more = stack.enter_context(socket.create_connection((WEB, port), timeout=5))
        assert not answered(more)
        other = stack.enter_context(
            socket.create_connection((WEB, port), timeout=5, source_address=(OTHER, 0))
        )
        assert answered(other)
    processes.await_true(
        lambda: answered(socket.create_connection((WEB, port), timeout=5)), "its places are free again"
    )


def test_names_in_vain_are_noted_and_what_an_address_is_called_is_not(table: Table, tmp_path: Path) -> None:
    denials = Denials(tmp_path / "nobody.sock")
    for name, kind in (("vault.bank", "A"), ("9.0.0.127.in-addr.arpa", "PTR"), ("api", "A")):
        answer(table, WEB, DNSRecord.question(name, kind).pack(), denials)
    assert {key: dict(names) for key, names in denials._counts.items()} == {(300, False): {"vault.bank": 1}}
