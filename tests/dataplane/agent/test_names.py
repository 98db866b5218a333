"""Names of the outside world, whole: workload, resolver, name server, agent and the kernel's programs."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from dnslib import RCODE, DNSRecord

from cells.boundary.model import TCP, UDP, External
from dataplane.agent import learning, upstreams
from dataplane.agent import lessons as conversations
from dataplane.agent.names import Names
from dataplane.resolver import lessons
from infra.config import Config
from tests.bpf.conftest import NET
from tests.dataplane import processes
from tests.dataplane.agent.outside import WORKLOADS, Outside, outside
from tests.dataplane.internet import servers4, servers6
from tests.dataplane.resolver.nameserver import NameServer

pytestmark = pytest.mark.root
API = External(443, "tcp", host="api.example.test")
SERVER, FIRST, SECOND, THIRD = servers4(NET)
SERVER6, FIRST6 = servers6(NET)[:2]
#: In which what ended has been looked for, seconds.
ROUNDS = 1.2


@pytest.fixture(scope="module")
def node(kernel: Config) -> Iterator[Outside]:
    with outside(kernel) as made:
        for address in (FIRST, SECOND, THIRD, FIRST6):
            for port in (443, 8443):
                made.internet.listen(address, port)
            made.internet.listen(address, 123, socket.SOCK_DGRAM)
        yield made


@pytest.fixture(scope="module", autouse=True)
def often() -> Iterator[None]:
    """What ended is looked for at each round of those who answer the resolver, not every other second."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(conversations, "TIDY_SECONDS", 0.1)
        yield


@pytest.fixture
def world(node: Outside) -> Iterator[Outside]:
    """A chain of aliases whose target nobody declares; nothing is declared or learned yet."""
    node.server.zone = {
        "api.example.test": (60, ["=edge.cdn.test"]),
        "edge.cdn.test": (60, [FIRST, FIRST6]),
        "a.wild.test": (60, [SECOND]),
        "a.b.wild.test": (60, [SECOND]),
    }
    node.server.asked.clear()
    node.kernel.flows()
    yield node
    node.names.learning._now = time.monotonic
    node.declare({})
    assert not node.names._tables.learned()


def declared(*externals: External) -> list[tuple[int, External]]:
    return [(1000 + number, external) for number, external in enumerate(externals)]


def test_a_declared_name_is_reached_at_its_port_and_nothing_else_is(world: Outside) -> None:
    world.declare({"web": declared(API), "jobs": declared(External(443, "tcp", host="other.test"))})
    assert not world.reaches("web", FIRST, 443), "before anybody asked"
    assert world.resolve("web", "api.example.test") == [FIRST]
    assert world.reaches("web", FIRST, 443)
    assert not world.reaches("web", FIRST6, 443), "only what was answered is open"
    assert world.resolve("web", "api.example.test", "AAAA") == [FIRST6]
    assert world.reaches("web", FIRST6, 443)
    world.refused()
    for port, udp in ((8443, False), (123, True), (443, True)):
        assert not world.reaches("web", FIRST, port, udp)
    assert not world.reaches("web", SECOND, 443)
    # Neighbour and stranger have no part in it.
    for other in ("jobs", "stranger"):
        assert world.resolve(other, "api.example.test") == []
        assert not world.reaches(other, FIRST, 443)
    refused = world.refused()
    assert {("EGRESS", FIRST, 8443), ("EGRESS", FIRST, 443), ("EGRESS", SECOND, 443)} <= refused
    assert world.open("jobs") == world.open("stranger") == set()


def test_a_flow_to_a_learned_address_has_the_connections_rule(world: Outside) -> None:
    world.declare({"web": declared(API)})
    world.resolve("web", "api.example.test")
    assert world.reaches("web", FIRST, 443)
    source = WORKLOADS["web"][0]
    seen = {(f.rule, f.port, f.protocol) for f in world.kernel.flows() if f.allowed and f.source == source}
    assert (1000, 443, TCP) in seen


def test_a_wildcard_covers_one_label_and_its_protocol(world: Outside) -> None:
    world.declare({"web": declared(External(123, "udp", host="*.wild.test"))})
    assert world.resolve("web", "a.wild.test") == [SECOND]
    assert world.reaches("web", SECOND, 123, udp=True)
    assert not world.reaches("web", SECOND, 443)
    for name in ("wild.test", "a.b.wild.test"):
        assert world.ask("web", name).header.rcode == RCODE.NXDOMAIN
    assert world.open("web") == {(SECOND, 123, UDP)}


def test_no_answer_opens_the_floor(world: Outside) -> None:
    """Rebinding: the name is its owner's, the address is somebody else's."""
    world.declare({"web": declared(External(443, "tcp", host="rebinding.test"))})
    near = world.internet.near4
    forbidden4 = [
        "10.0.0.1", "127.0.0.1", "169.254.169.254", "172.16.1.1", "192.168.1.1", "100.100.100.200", "0.0.0.0",
        "224.0.0.1", "255.255.255.255", near, str(world.config.workloads4[9202]), str(world.config.services4[101]),
    ]  # fmt: skip
    forbidden6 = [
        "::1", "::", "fe80::1", "fd00::1", "::ffff:c633:640a", "64:ff9b::a00:1", "ff02::1",
        world.internet.near6, str(world.config.workloads6[9202]),
    ]  # fmt: skip
    world.server.zone["rebinding.test"] = (60, [*forbidden4, *forbidden6])
    for kind in ("A", "AAAA"):
        found = world.ask("web", "rebinding.test", kind)
        assert (found.header.rcode, found.rr) == (RCODE.NOERROR, [])
    assert world.open("web") == set()
    flows = [flow for flow in world.names.take() if flow["reason"] != "NAME"]
    assert {(f["reason"], f["remote"], f["port"], f["source"], f["allowed"]) for f in flows} == {
        ("NAME_FLOOR", "rebinding.test", 443, WORKLOADS["web"][0], False)
    }


def test_of_a_mixed_answer_only_what_may_be_open_is_given(world: Outside) -> None:
    world.declare({"web": declared(External(443, "tcp", host="mixed.test"))})
    world.server.zone["mixed.test"] = (60, ["10.0.0.1", FIRST, world.internet.near4])
    assert world.resolve("web", "mixed.test") == [FIRST]
    assert world.open("web") == {(FIRST, 443, TCP)}


def test_a_declaration_that_is_taken_back_closes_and_cuts_at_once(world: Outside) -> None:
    world.declare({"web": declared(API, External(443, "tcp", host="a.wild.test"))})
    world.resolve("web", "api.example.test")
    world.resolve("web", "a.wild.test")
    cut, kept = world.connect("web", FIRST, 443), world.connect("web", SECOND, 443)
    with cut, kept:
        # The remaining one keeps its rule.
        world.declare({"web": [(1001, External(443, "tcp", host="a.wild.test"))]})
        begun = time.monotonic()
        with pytest.raises(OSError, match="abort"):
            while True:
                cut.sendall(b"on")
                cut.recv(64)
                time.sleep(0.05)
        assert time.monotonic() - begun < 1
        kept.sendall(b"on")
        assert kept.recv(64) == b"on"
    assert not world.reaches("web", FIRST, 443)
    assert world.open("web") == {(SECOND, 443, TCP)}
    assert world.ask("web", "api.example.test").header.rcode == RCODE.NXDOMAIN


def test_a_port_that_is_declared_later_is_open_for_what_is_known(world: Outside) -> None:
    world.declare({"web": declared(API)})
    world.resolve("web", "api.example.test")
    world.declare({"web": declared(API, External(8443, "tcp", host="*.example.test"))})
    assert world.reaches("web", FIRST, 8443)
    assert world.open("web") == {(FIRST, 443, TCP), (FIRST, 8443, TCP)}


def test_an_address_is_open_for_its_time_and_its_connections(
    world: Outside, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(learning, "AGAIN", 0)
    world.declare({"web": declared(API)})
    world.resolve("web", "api.example.test")
    world.names.learning._now = lambda: time.monotonic() + 40 + lessons.GRACE
    time.sleep(ROUNDS)
    assert world.reaches("web", FIRST, 443), "its time isn't over"
    with world.connect("web", FIRST, 443) as client:
        world.names.learning._now = lambda: time.monotonic() + 62 + lessons.GRACE
        time.sleep(ROUNDS)
        client.sendall(b"on")
        assert client.recv(64) == b"on"
        assert world.open("web") == {(FIRST, 443, TCP)}
    processes.await_true(lambda: world.open("web") == set(), "it stays open without a connection")
    assert not world.reaches("web", FIRST, 443)


def test_of_many_that_ended_a_few_are_looked_at_in_one_go(
    world: Outside, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(learning, "AT_ONCE", 1)
    everybody = {name: [(1000 + n, API)] for n, name in enumerate(WORKLOADS)}
    world.declare(everybody)
    for name in everybody:
        world.resolve(name, "api.example.test")
    world.names.learning._now = lambda: time.monotonic() + 70 + lessons.GRACE
    processes.await_true(lambda: not world.names._tables.learned(), "some stay open")


def test_what_changes_upstream_is_followed(world: Outside) -> None:
    world.declare({"web": declared(API, External(443, "tcp", host="n.example.test"))})
    world.server.zone["n.example.test"] = (0, [FIRST])
    found = world.ask("web", "n.example.test")
    assert 1 <= found.rr[0].ttl <= 10
    world.server.zone["n.example.test"] = (0, [SECOND])
    processes.await_true(lambda: world.resolve("web", "n.example.test") == [SECOND], "the old one stays")
    assert world.open("web") == {(FIRST, 443, TCP), (SECOND, 443, TCP)}, "the old one for its grace"


@pytest.mark.parametrize("file", ["kept", "older", "lost", "damaged"])
def test_an_agent_that_starts_takes_over_what_is_open(world: Outside, file: str) -> None:
    world.declare({"web": declared(API)})
    world.resolve("web", "api.example.test")
    noted = world.config.agent_dir / "learned.json"
    processes.await_true(lambda: noted.exists() and "api.example.test" in noted.read_text(), "it isn't noted")
    before = world.boundary
    with world.connect("web", FIRST, 443) as client:
        world.names.close()
        assert world.reaches("web", FIRST, 443), "while it is away"
        _change(noted, file)
        world.names = Names(world.config, world.kernel)
        assert world.open("web") == {(FIRST, 443, TCP)}
        world.kernel.apply(before)
        world.names.apply(before)
        client.sendall(b"on")
        assert client.recv(64) == b"on"
    assert world.reaches("web", FIRST, 443)
    time.sleep(ROUNDS)
    assert world.open("web") == {(FIRST, 443, TCP)}
    # Its answer has an end all the same, and its declaration too.
    world.declare({})
    assert world.open("web") == set()


def _change(noted: Path, file: str) -> None:
    if file == "older":
        noted.write_text(noted.read_text().replace("api.example.test", "older.example.test"))
    if file == "lost":
        noted.unlink()
    if file == "damaged":
        noted.write_text('[[1, "x"')


def test_tables_that_were_lost_are_filled_again_before_anything_else(world: Outside) -> None:
    world.declare({"web": declared(API)})
    world.resolve("web", "api.example.test")
    noted = world.config.agent_dir / "learned.json"
    processes.await_true(lambda: noted.exists() and "api.example.test" in noted.read_text(), "it isn't noted")
    world.names._tables.forget_learned(WORKLOADS["web"][0], FIRST, 443, TCP)
    world.restart()
    world.names.apply(world.boundary)
    assert world.open("web") == {(FIRST, 443, TCP)}
    assert world.reaches("web", FIRST, 443)


def test_resolving_elsewhere_stays_closed(world: Outside) -> None:
    """Other servers, over UDP, TCP and TLS, DNS over HTTPS, and the platform's own upstream server."""
    world.declare({"web": declared(API)})
    world.refused()
    query = bytes(DNSRecord.question("api.example.test").pack())
    tried = [("8.8.8.8", 53), ("8.8.8.8", 853), ("8.8.8.8", 443), ("1.1.1.1", 443), (SERVER, 53)]
    for address, port in tried:
        assert not world.reaches("web", address, port)
        with pytest.raises(OSError):
            world.datagram("web", address, port, query, 0.3)
    assert {("EGRESS", address, port) for address, port in tried} <= world.refused()


def test_one_identity_has_so_many_addresses_and_more_are_refused_visibly(
    world: Outside, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(learning, "MOST", 3)
    world.declare({"web": declared(External(443, "tcp", host="*.wild.test")), "jobs": declared(API)})
    for number in range(5):
        world.server.zone[f"n{number}.wild.test"] = (60, [f"198.51.100.{100 + number}"])
    found = [world.ask("web", f"n{number}.wild.test") for number in range(5)]
    assert [record.header.rcode for record in found] == [RCODE.NOERROR] * 3 + [RCODE.SERVFAIL] * 2
    assert len(world.open("web")) == 3
    refused = [f for f in world.names.take() if f["reason"] == "NAME_QUOTA"]
    assert {f["remote"] for f in refused} == {"n3.wild.test", "n4.wild.test"}
    assert world.resolve("jobs", "api.example.test") == [FIRST], "others have their own"


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"{",
        b"null\n",
        b"[]\n",
        b"{}\n",
        b"[" * 5000 + b"\n",
        b'{"identity": 70001, "name": "other.test", "addresses": ["198.51.100.12"], "ttl": 60}\n',
        b'{"identity": 70003, "name": "api.example.test", "addresses": ["198.51.100.12"], "ttl": 60}\n',
        b'{"identity": 70001, "name": "API.example.test", "addresses": ["198.51.100.12"], "ttl": 60}\n',
        b'{"identity": 70001, "name": "api.example.test", "addresses": ["10.0.0.1"], "ttl": 60}\n',
        b'{"identity": 70001, "name": "api.example.test", "addresses": ["198.51.100.0/24"], "ttl": 60}\n',
        b'{"identity": 70001, "name": "api.example.test", "addresses": "198.51.100.12", "ttl": 60}\n',
        b'{"identity": 70001, "name": "api.example.test", "addresses": ["198.51.100.12"], "ttl": 1e999}\n',
        b'{"identity": "x", "name": "api.example.test", "addresses": ["198.51.100.12"], "ttl": 60}\n',
        b"x" * 70000,
    ],
)
def test_the_resolvers_word_opens_nothing_that_isnt_declared(world: Outside, sent: bytes) -> None:
    world.declare({"web": declared(API)})
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(3)
        client.connect(str(lessons.path_in(world.config.resolver_dir)))
        with pytest.MonkeyPatch.context():
            try:
                client.sendall(sent)
                client.recv(4096)
            except OSError:
                pass
    assert not world.names._tables.learned()
    assert world.resolve("web", "api.example.test") == [FIRST], "the next question is answered"


def test_only_the_resolver_may_talk_to_the_agent(world: Outside) -> None:
    found = lessons.path_in(world.config.resolver_dir).stat()
    assert found.st_mode & 0o777 == 0o660
    assert found.st_gid == world.config.resolver_dir.stat().st_gid


def test_the_resolver_itself_reaches_its_servers_only_while_somebody_declares_names(world: Outside) -> None:
    policy = world.kernel._tables
    assert not _upstream_entries(world)
    world.declare({"web": declared(API)})
    assert {entry[0] for entry in _upstream_entries(world)} == {f"{SERVER}/32", f"{SERVER6}/128"}
    assert policy is world.kernel._tables
    world.declare({})
    assert not _upstream_entries(world)


def test_a_private_server_is_the_resolvers_alone(world: Outside, monkeypatch: pytest.MonkeyPatch) -> None:
    private = world.internet.private
    server = NameServer({"api.example.test": (60, [SECOND])}).open(private, 53, world.internet.path)
    try:
        monkeypatch.setattr(upstreams, "servers", lambda config: [private])
        assert world.names.refresh()
        world.declare({"web": declared(API)})
        assert world.resolve("web", "api.example.test") == [SECOND]
        assert world.reaches("web", SECOND, 443)
        world.refused()
        with pytest.raises(OSError):
            world.datagram("web", private, 53, b"\0" * 12, 0.3)
        assert ("FLOOR", private, 53) in world.refused()
        assert server.names() == ["api.example.test"]
    finally:
        server.close()
        monkeypatch.undo()
        assert world.names.refresh()


def _upstream_entries(world: Outside) -> dict:
    return world.kernel._tables._index[4][1]


def test_in_audit_a_name_is_answered_and_the_call_passes_for_the_record(world: Outside) -> None:
    world.declare({}, audit=frozenset({"web"}))
    assert world.resolve("web", "a.wild.test") == [SECOND]
    assert world.reaches("web", SECOND, 443)
    assert world.open("web") == set()
    processes.await_true(
        lambda: any(f["reason"] == "NAME" and f["allowed"] for f in world.names.take()), "it isn't noted"
    )
    assert ("EGRESS", True) in {(f.reason, f.allowed) for f in world.kernel.flows() if f.remote == SECOND}
    world.server.zone["inside.test"] = (60, ["10.0.0.1"])
    assert world.resolve("web", "inside.test") == []


def test_health_says_what_keeps_declared_names_from_being_answered(
    world: Outside, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert world.names.problems() == []
    monkeypatch.setattr(upstreams, "servers", lambda config: [])
    assert world.names.refresh(), "other servers than before"
    assert world.names.problems() == [], "nobody needs them"
    world.declare({"web": declared(API)})
    assert world.names.problems() == [upstreams.NONE]
    monkeypatch.undo()
    assert world.names.refresh()
    world.declare({"web": declared(API)})  # as the agent does then
    assert world.names.problems() == []
    # Servers that are there and don't answer are a problem too.
    world.server.spoil = lambda query, reply: None
    try:
        assert world.ask("web", "api.example.test").header.rcode == RCODE.SERVFAIL
        processes.await_true(
            lambda: any("no answer" in text for text in world.names.problems()), "it isn't said"
        )
    finally:
        world.server.spoil = None
    assert world.resolve("web", "api.example.test") == [FIRST]
    processes.await_true(lambda: world.names.problems() == [], "it is still said")


def test_masquerading_holds_for_the_resolver_too(world: Outside) -> None:
    """The name server knows no way back but to the node."""
    table = f"cytoplane_{world.config.net}"
    rules = subprocess.run(
        ["nft", "list", "table", "inet", table], capture_output=True, text=True, check=True
    )
    assert "masquerade" in rules.stdout
    world.declare({"web": declared(API)})
    assert world.resolve("web", "api.example.test") == [FIRST]
    assert len(world.server.asked) == 1
