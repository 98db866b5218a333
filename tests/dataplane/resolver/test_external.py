"""Names of the outside world at the resolver: who gets an answer, when, and for how long it counts."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from dnslib import EDNS0, QTYPE, RCODE, DNSRecord

from dataplane.resolver import external, lessons, lookups, server, upstream
from dataplane.resolver.cache import MOST_EACH, Cache, Known
from dataplane.resolver.denials import Denials
from dataplane.resolver.lookups import Found
from dataplane.resolver.server import serve
from dataplane.resolver.table import Table
from dataplane.resolver.upstream import Upstream
from tests.dataplane import processes
from tests.dataplane.resolver.nameserver import NameServer

WEB, OTHER, AUDITED = "127.0.0.1", "127.0.0.2", "127.0.0.3"
NAME = "api.example.test"
ZONE = {
    NAME: (60, ["=edge.cdn.test"]),
    "edge.cdn.test": (30, ["198.51.100.7", "198.51.100.8", "2001:db8::7"]),
    "a.wild.test": (60, ["198.51.100.9"]),
    "other.test": (60, ["198.51.100.10"]),
}
TABLE = {
    "askers": {WEB: 300, OTHER: 301, AUDITED: 302},
    "names": {"300": {"api": ["10.65.0.9", "fd00::9"]}, "301": {}, "302": {}},
    "external": {"300": [NAME, "*.wild.test", "gone.test"], "302": ["*", "a.wild.test"]},
    "servers": ["127.0.0.1"],
}


def admit(question: dict[str, Any]) -> dict[str, Any] | None:
    return {"addresses": question["addresses"], "ttl": question["ttl"], "refusal": ""}


@dataclass
class Desk:
    """Answers lessons as an agent would, or as one that can't."""

    path: Path
    answer: Callable[[dict[str, Any]], dict[str, Any] | None] = admit
    taught: list[dict[str, Any]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def open(self) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self.path.unlink(missing_ok=True)
        self._socket.bind(str(self.path))
        self._socket.listen(64)
        threading.Thread(target=self._run, args=(self._socket,), daemon=True).start()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def _run(self, opened: socket.socket) -> None:
        while True:
            try:
                client, _ = opened.accept()
            except OSError:
                return
            threading.Thread(target=self._one, args=(client,), daemon=True).start()

    def _one(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError, ValueError):
            question = json.loads(client.makefile().readline())
            if "problem" in question:
                self.problems.append(question["problem"])
                client.sendall(b"{}\n")
                return
            self.taught.append(question)
            answer = self.answer(question)
            if answer is not None:
                client.sendall(json.dumps(answer).encode() + b"\n")


@dataclass
class Stage:
    """A resolver on the loopback between a name server and an agent."""

    port: int
    names: NameServer
    desk: Desk
    table: Path
    upstream: Upstream
    denials: Denials

    def ask(self, name: str = NAME, kind: str = "A", asker: str = WEB, tcp: bool = False) -> DNSRecord:
        query = DNSRecord.question(name, kind)
        query.add_ar(EDNS0(udp_len=1232))
        return DNSRecord.parse(self.send(bytes(query.pack()), asker, tcp))

    def send(self, data: bytes, asker: str = WEB, tcp: bool = False) -> bytes:
        kind = socket.SOCK_STREAM if tcp else socket.SOCK_DGRAM
        with socket.socket(socket.AF_INET, kind) as client:
            client.settimeout(8)
            client.bind((asker, 0))
            client.connect(("127.0.0.1", self.port))
            client.sendall(struct.pack("!H", len(data)) + data if tcp else data)
            return client.recv(4096)[2 if tcp else 0 :]


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    names = NameServer(dict(ZONE)).open()
    desk = Desk(lessons.path_in(tmp_path))
    desk.open()
    file = tmp_path / "table.json"
    file.write_text(json.dumps(TABLE))
    port = processes.free_port()
    asking = Upstream(names.port)
    denials = Denials(tmp_path / "denials.sock")
    made = Stage(port, names, desk, file, asking, denials)
    loop = asyncio.new_event_loop()
    agent = lessons.Agent(desk.path)
    task = loop.create_task(serve(Table(file), denials, ["127.0.0.1"], port, agent=agent, upstream=asking))

    def run() -> None:
        with contextlib.suppress(asyncio.CancelledError):
            loop.run_until_complete(task)
        loop.run_until_complete(_end_others())
        loop.close()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    processes.await_true(lambda: processes.listens(port), "the resolver isn't ready")
    processes.await_true(lambda: asking.servers == ("127.0.0.1",), "it knows no servers")
    yield made
    loop.call_soon_threadsafe(task.cancel)
    thread.join(10)
    desk.close()
    names.close()


async def _end_others() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for other in others:
        other.cancel()
    await asyncio.gather(*others, return_exceptions=True)


def rows(record: DNSRecord) -> list[tuple[str, str]]:
    return [(str(row.rname).rstrip("."), str(row.rdata).rstrip(".")) for row in record.rr]


def said(record: DNSRecord) -> tuple[int, str]:
    """The extended error."""
    for row in record.ar:
        for option in row.rdata:
            return struct.unpack("!H", option.data[:2])[0], option.data[2:].decode()
    return 0, ""


def test_a_declared_name_is_answered_with_its_chain_once_the_agent_has_opened_it(stage: Stage) -> None:
    found = stage.ask()
    assert rows(found) == [
        (NAME, "edge.cdn.test"),
        ("edge.cdn.test", "198.51.100.7"),
        ("edge.cdn.test", "198.51.100.8"),
    ]
    assert {row.ttl for row in found.rr} == {30}
    assert found.header.ra
    assert not found.header.aa
    assert stage.desk.taught == [
        {"identity": 300, "name": NAME, "addresses": ["198.51.100.7", "198.51.100.8"], "ttl": 30}
    ]
    assert rows(stage.ask(kind="AAAA"))[1:] == [("edge.cdn.test", "2001:db8::7")]
    assert rows(stage.ask(tcp=True)) == rows(found)


def test_no_answer_leaves_before_the_agent_has_said_yes(stage: Stage) -> None:
    going = threading.Event()

    def slowly(question: dict[str, Any]) -> dict[str, Any] | None:
        going.wait(5)
        return admit(question)

    stage.desk.answer = slowly
    query = bytes(DNSRecord.question(NAME).pack())
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.bind((WEB, 0))
        client.connect(("127.0.0.1", stage.port))
        client.send(query)
        processes.await_true(lambda: bool(stage.desk.taught), "the agent isn't asked")
        client.settimeout(0.2)
        with pytest.raises(TimeoutError):
            client.recv(2048)
        going.set()
        client.settimeout(5)
        assert len(DNSRecord.parse(client.recv(2048)).rr) == 3


def test_only_who_declared_a_name_gets_it_and_nobody_asks_upstream_for_the_rest(stage: Stage) -> None:
    for asker, name in (
        (OTHER, NAME),
        (WEB, "other.test"),
        (WEB, "wild.test"),
        (WEB, "a.b.wild.test"),
        (WEB, "edge.cdn.test"),
        (WEB, f"x.{NAME}"),
        (WEB, f"{NAME}.cy.internal"),
        (WEB, "a b.wild.test"),
        (WEB, "*.wild.test"),
    ):
        found = stage.ask(name, asker=asker)
        assert (found.header.rcode, found.rr) == (RCODE.NXDOMAIN, []), name
    assert stage.names.asked == []
    assert stage.desk.taught == []
    assert rows(stage.ask("A.Wild.Test")) == [("A.Wild.Test", "198.51.100.9")]
    noted = {
        name
        for (identity, audited), names in stage.denials._counts.items()
        if identity == 300
        for name in names
    }
    assert "other.test" in noted
    assert NAME not in noted, "a declared name with the search domain is no attempt of its own"


def test_other_records_of_a_declared_name_are_empty_and_not_asked_for(stage: Stage) -> None:
    for kind in ("TXT", "MX", "SRV", "HTTPS", "CNAME", "NS", "ANY"):
        found = stage.ask(kind=kind)
        assert (found.header.rcode, found.rr) == (RCODE.NOERROR, [])
    assert stage.names.asked == []


def test_an_answer_counts_for_its_asker_until_it_ends(stage: Stage) -> None:
    stage.ask()
    stage.names.zone["edge.cdn.test"] = (30, ["198.51.100.99"])
    again = stage.ask()
    assert rows(again)[1] == ("edge.cdn.test", "198.51.100.7")
    assert again.rr[0].ttl <= 30
    assert len(stage.names.asked) == len(stage.desk.taught) == 1


def test_an_ended_answer_is_asked_for_again(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookups, "TTL_FLOOR", 1)
    stage.names.zone["edge.cdn.test"] = (1, ["198.51.100.7"])
    assert len(rows(stage.ask())) == 2
    stage.names.zone["edge.cdn.test"] = (1, ["198.51.100.99"])
    time.sleep(1.1)
    assert rows(stage.ask())[1] == ("edge.cdn.test", "198.51.100.99")
    assert [lesson["addresses"] for lesson in stage.desk.taught] == [["198.51.100.7"], ["198.51.100.99"]]


def test_addresses_that_the_agent_doesnt_open_arent_answered(stage: Stage) -> None:
    stage.desk.answer = lambda q: {"addresses": ["198.51.100.8", "6.6.6.6"], "ttl": 20, "refusal": ""}
    found = stage.ask()
    assert rows(found)[1:] == [("edge.cdn.test", "198.51.100.8")], "nor those that nobody asked it for"
    assert found.rr[1].ttl == 20
    stage.desk.answer = lambda q: {"addresses": [], "ttl": 20, "refusal": ""}
    empty = stage.ask(kind="AAAA")
    assert (empty.header.rcode, empty.rr) == (RCODE.NOERROR, [])
    assert said(empty) == (15, "it leads to addresses that no tenant can open")
    stage.desk.answer = lambda q: {"addresses": [], "ttl": 0, "refusal": "too many"}
    refused = stage.ask("a.wild.test")
    assert (refused.header.rcode, said(refused)) == (RCODE.SERVFAIL, (15, "too many"))


@pytest.mark.parametrize("answer", [None, {}, {"addresses": 1, "ttl": 1}, {"addresses": [], "ttl": "x"}, [1]])
def test_an_agent_that_talks_nonsense_is_no_agent(stage: Stage, answer: Any) -> None:
    stage.desk.answer = lambda q: answer
    found = stage.ask()
    assert (found.header.rcode, found.rr) == (RCODE.SERVFAIL, [])
    assert said(found) == (14, "the node's agent is away")


def test_while_the_agent_is_away_what_it_opened_stays_an_answer(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lookups, "TTL_FLOOR", 1)
    stage.names.zone["edge.cdn.test"] = (1, ["198.51.100.7"])
    stage.ask()
    stage.desk.close()
    stage.names.zone["edge.cdn.test"] = (1, ["198.51.100.99"])
    time.sleep(1.2)
    old = stage.ask()
    assert rows(old)[1] == ("edge.cdn.test", "198.51.100.7"), "the address that is open, not the new one"
    assert said(old) == (3, "the node's agent is away")
    new = stage.ask("a.wild.test")
    assert (new.header.rcode, said(new)[0]) == (RCODE.SERVFAIL, 14)
    stage.desk.open()
    assert rows(stage.ask())[1] == ("edge.cdn.test", "198.51.100.99")
    assert rows(stage.ask("a.wild.test")) == [("a.wild.test", "198.51.100.9")]


def test_that_there_is_nothing_is_kept_too_and_opens_nothing(stage: Stage) -> None:
    for _ in range(3):
        found = stage.ask("gone.test")
        assert (found.header.rcode, found.rr) == (RCODE.NXDOMAIN, [])
    for _ in range(3):
        assert stage.ask("a.wild.test", "AAAA").header.rcode == RCODE.NOERROR
    assert len(stage.names.asked) == 2
    assert stage.desk.taught == []


def test_without_upstream_servers_the_asker_is_told_and_the_agent_too(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upstream, "UDP_SECONDS", 0.05)
    monkeypatch.setattr(upstream, "ALL_SECONDS", 0.3)
    stage.names.spoil = lambda query, reply: None
    found = stage.ask()
    assert (found.header.rcode, said(found)) == (RCODE.SERVFAIL, (22, "no upstream server answers"))
    processes.await_true(lambda: any("127.0.0.1" in text for text in stage.desk.problems), "nobody is told")
    stage.names.spoil = None
    assert stage.ask().header.rcode == RCODE.NOERROR
    processes.await_true(lambda: stage.desk.problems[-1] == "", "it is still told")


def test_askers_of_one_name_at_once_make_one_question(stage: Stage) -> None:
    going = threading.Event()

    def slowly(query: DNSRecord, reply: DNSRecord) -> bytes:
        going.wait(5)
        return bytes(reply.pack())

    stage.names.spoil = slowly
    found: list[DNSRecord] = []
    threads = [threading.Thread(target=lambda: found.append(stage.ask())) for _ in range(10)]
    for thread in threads:
        thread.start()
    processes.await_true(lambda: bool(stage.names.asked), "nobody is asked")
    going.set()
    for thread in threads:
        thread.join(10)
    assert len(found) == 10
    assert all(len(record.rr) == 3 for record in found)
    assert len(stage.names.asked) == 1


def test_one_asker_cant_take_all_questions(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(external, "MOST_EACH", 3)
    stage.names.spoil = lambda query, reply: None
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.bind((WEB, 0))
        client.connect(("127.0.0.1", stage.port))
        for number in range(3):
            client.send(bytes(DNSRecord.question(f"n{number}.wild.test").pack()))
        processes.await_true(lambda: len(set(stage.names.names())) == 3, "they aren't on their way")
        found = stage.ask("n4.wild.test")
        assert (found.header.rcode, said(found)) == (RCODE.SERVFAIL, (14, "too many questions at once"))
        stage.names.spoil = None
        assert stage.ask("a.wild.test", asker=AUDITED).header.rcode == RCODE.NOERROR, "others go on"


def test_in_audit_every_name_is_answered_and_noted_as_such(stage: Stage) -> None:
    assert rows(stage.ask("other.test", asker=AUDITED)) == [("other.test", "198.51.100.10")]
    assert rows(stage.ask("a.wild.test", asker=AUDITED)) == [("a.wild.test", "198.51.100.9")]
    assert dict(stage.denials._counts[302, True]) == {"other.test": 1}
    for name in ("single", "7.113.0.203.in-addr.arpa", "api.cy.internal"):
        assert stage.ask(name, asker=AUDITED).header.rcode == RCODE.NXDOMAIN


def test_what_doesnt_fit_over_udp_is_cut_and_whole_over_tcp(stage: Stage) -> None:
    stage.names.zone["a.wild.test"] = (60, [f"2001:db8::{n:x}" for n in range(1, 33)])
    query = bytes(DNSRecord.question("a.wild.test", "AAAA").pack())
    small = stage.send(query)
    assert len(small) <= 512
    assert DNSRecord.parse(small).header.tc
    assert len(DNSRecord.parse(stage.send(query, tcp=True)).rr) == 32


def test_names_can_be_declared_and_taken_back_while_it_runs(stage: Stage) -> None:
    stage.ask()
    document = {**TABLE, "external": {"300": ["other.test"]}}
    fresh = stage.table.with_name("new")
    fresh.write_text(json.dumps(document))
    fresh.rename(stage.table)
    assert stage.ask().header.rcode == RCODE.NXDOMAIN, "whatever is kept of it"
    assert rows(stage.ask("other.test")) == [("other.test", "198.51.100.10")]


def test_what_is_kept_has_bounds_for_each_asker_and_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dataplane.resolver.cache.MOST", MOST_EACH + 10)
    cache, known = Cache(), Known(Found((), (), 5), 0.0)
    cache.put((1, "first", QTYPE.A), known)
    for number in range(MOST_EACH * 2):
        cache.put((2, f"n{number}", QTYPE.A), known)
    assert cache.get((1, "first", QTYPE.A)) is known, "another's questions don't push it out"
    assert cache.get((2, "n0", QTYPE.A)) is None
    assert len(cache) == MOST_EACH + 1
    for identity in range(3, 40):
        cache.put((identity, "x", QTYPE.A), known)
    assert len(cache) == MOST_EACH + 10


def test_the_table_alone_answers_as_before(tmp_path: Path) -> None:
    """Without an agent, as in an old table's time, names outside don't exist."""
    file = tmp_path / "table.json"
    file.write_text(json.dumps({"askers": {WEB: 300}, "names": {"300": {}}}))
    table = Table(file)
    table.refresh()
    data = server.answer(table, WEB, bytes(DNSRecord.question(NAME).pack()))
    assert data is not None
    assert DNSRecord.parse(data).header.rcode == RCODE.NXDOMAIN
