"""Names asked for in vain, on their way from the resolver to the agent's report."""

from __future__ import annotations

import json
import os
import socket
import stat
from pathlib import Path
from typing import Any

import pytest
from dnslib import DNSLabel, DNSRecord

from dataplane.agent.names import NameDenials
from dataplane.resolver import denials
from dataplane.resolver.denials import LONGEST_NAME, MOST_NAMES, OTHERS, Denials
from dataplane.resolver.server import answer
from dataplane.resolver.table import Table
from infra.config import Config


@pytest.fixture
def config(tmp_path: Path) -> Config:
    made = Config(home=tmp_path)
    made.resolver_dir.mkdir()
    return made


@pytest.fixture
def counts(config: Config) -> Denials:
    return Denials(denials.path_in(config.resolver_dir))


def taken(agent: NameDenials) -> dict[tuple[int, str], int]:
    found: dict[tuple[int, str], int] = {}
    for flow in agent.take():
        key = (flow["source"], flow["remote"])
        found[key] = found.get(key, 0) + flow["packets"]
    return found


def test_a_name_in_vain_becomes_a_denial_of_its_asker(config: Config, counts: Denials) -> None:
    agent = NameDenials(config)
    table = Table(config.resolver_dir / "table.json")
    (config.resolver_dir / "table.json").write_text(
        json.dumps({"askers": {"10.0.0.1": 300, "10.0.0.2": 301}, "names": {"300": {"api": ["10.0.0.9"]}}})
    )
    table.refresh()
    for asker, name in (
        ("10.0.0.1", "Bank.Globex.localhost"),
        ("10.0.0.1", "bank.globex.localhost."),
        ("10.0.0.2", "api"),
    ):
        answer(table, asker, DNSRecord.question(name).pack(), counts)
    # What is answered, and who isn't anybody, isn't reported.
    answer(table, "10.0.0.1", DNSRecord.question("api").pack(), counts)
    answer(table, "10.0.0.3", DNSRecord.question("api").pack(), counts)
    counts.send()
    flows = list(agent.take())
    assert {(f["source"], f["remote"], f["packets"]) for f in flows} == {
        (300, "bank.globex.localhost", 2),
        (301, "api", 1),
    }
    assert all(
        (f["reason"], f["allowed"], f["port"], f["direction"]) == ("NAME", False, 53, 0) for f in flows
    )
    counts.send()
    assert taken(agent) == {}, "what was handed over isn't again"


def test_an_asker_cant_fill_records_with_names(config: Config, counts: Denials) -> None:
    agent = NameDenials(config)
    for number in range(5000):
        counts.note(300, f"n{number}.example.org")
    counts.note(300, "n3.example.org")
    counts.note(301, "x" * 5000)
    counts.send()
    found = taken(agent)
    assert len(found) == MOST_NAMES + 2
    assert found[300, OTHERS] == 5000 - MOST_NAMES
    assert found[300, "n3.example.org"] == 2
    assert found[301, "x" * LONGEST_NAME] == 1


def test_counts_are_kept_while_nobody_listens(config: Config, counts: Denials) -> None:
    counts.note(300, "bank")
    counts.send()
    agent = NameDenials(config)
    counts.note(300, "bank")
    counts.send()
    assert taken(agent) == {(300, "bank"): 2}
    agent._socket.close()
    counts.note(300, "bank")
    counts.send()
    assert taken(NameDenials(config)) == {}
    counts.send()
    later = NameDenials(config)
    counts.send()
    assert taken(later) == {(300, "bank"): 1}


def test_nothing_is_counted_twice_when_the_agent_is_slow(config: Config, counts: Denials) -> None:
    """Its queue holds few datagrams: what doesn't fit waits, what went doesn't go again."""
    agent = NameDenials(config)
    for identity in range(300, 1300):
        for number in range(MOST_NAMES):
            counts.note(identity, f"{number}." + 'é"\\' * 80)
    found: dict[tuple[int, str], int] = {}
    for _ in range(1000):
        counts.send()
        for key, count in taken(agent).items():
            found[key] = found.get(key, 0) + count
        if not counts._counts:
            break
    assert len(found) == 1000 * MOST_NAMES
    assert set(found.values()) == {1}


def test_the_longest_names_fit_what_the_agent_reads(config: Config, counts: Denials) -> None:
    agent = NameDenials(config)
    for identity in range(300, 310):
        for number in range(MOST_NAMES):
            label = DNSLabel([bytes([number + 128]) * 63, b"\x00" * 63, b'"' * 63, b"\\" * 50])
            counts.note(identity, Table.plain(str(label)))
    counts.send()
    assert len(taken(agent)) == 10 * MOST_NAMES


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"{",
        b"null",
        b"{}",
        b"[1]",
        b"[[]]",
        b'[["a", "b", "c"]]',
        b"[[1, 2]]",
        b'[{"a": 1}]',
        b"\xff\xfe",
    ]
    + [
        b"[" * 60000,
        b'[[1e999, "x", 1]]',
        b'[[1, "x", NaN]]',
        b'[[1, "x", "' + b"9" * 5000 + b'"]]',
        b'[["1", [], {}]]',
    ],
)
def test_the_resolvers_word_is_checked(config: Config, sent: bytes) -> None:
    agent = NameDenials(config)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as client:
        client.connect(str(denials.path_in(config.resolver_dir)))
        client.send(sent)
        client.send(b'[[300, "' + b"y" * 1000 + b'", 1]]')
    found: list[dict[str, Any]] = list(agent.take())
    assert [f["remote"] for f in found] == ["y" * LONGEST_NAME]


def test_only_the_resolvers_group_may_hand_over(config: Config) -> None:
    if os.geteuid() == 0:
        os.chown(config.resolver_dir, 0, 4242)
    NameDenials(config)
    found = denials.path_in(config.resolver_dir).stat()
    assert stat.S_IMODE(found.st_mode) == 0o660
    assert found.st_gid == config.resolver_dir.stat().st_gid
    NameDenials(config)  # a new agent takes the place of one that was killed
