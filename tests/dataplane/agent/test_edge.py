"""The agent keeps the edge as it should be, and nothing that fails there holds up anything else."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from bpf import edge
from dataplane.addresses import GATEWAYS_PORT
from dataplane.agent.edge import Guard
from infra.config import Config
from tests.bpf.conftest import NET

pytestmark = pytest.mark.root
NAME = f"cy{NET}face"


def link(*words: str) -> None:
    subprocess.run(["ip", "link", *words], capture_output=True, check=False)


@pytest.fixture
def interface() -> Iterator[str]:
    link("delete", NAME)
    link("add", NAME, "type", "veth", "peer", "name", f"{NAME}p")
    yield NAME
    link("delete", NAME)


@pytest.fixture
def config(tmp_path: Path, interface: str) -> Iterator[Config]:
    made = Config(
        home=tmp_path,
        net=NET,
        portal_port=22000,
        apps_port=22080,
        agents_port=22443,
        edge_interface=interface,
    )
    edge.remove(made)
    yield made
    edge.remove(made)


def document(*entries: tuple[str, int]) -> dict:
    return {"edge": {"denied": [list(entry) for entry in entries]}}


def in_force(config: Config) -> list[str]:
    tables = edge.Tables(config)
    try:
        return tables.denied()
    finally:
        tables.close()


def test_the_named_interface_is_guarded_with_the_list_of_desired_state(config: Config) -> None:
    guard = Guard(config)
    now = int(time.time())
    guard.accept(document(("203.0.113.0/24", 0), ("2001:db8::/32", now + 3600), ("198.51.100.0/24", now - 1)))
    assert guard.problems == []
    assert in_force(config) == ["2001:db8::/32", "203.0.113.0/24"]
    report = guard.report()
    assert report is not None
    assert (report["interface"], report["guarded"], report["denied"]) == (NAME, True, 2)
    assert (report["counters"]["denied"], report["offenders"]) == (0, [])


def open_ports(config: Config) -> list[int]:
    tables = edge.Tables(config)
    try:
        return sorted(edge._PORT.unpack(key)[0] for key in tables._maps["edge_ports"].keys())
    finally:
        tables.close()


def test_the_port_between_gateways_is_guarded_where_there_are_several_nodes(config: Config) -> None:
    Guard(config).refresh()
    assert open_ports(config) == [22000, 22080, 22443]
    Guard(replace(config, engine="kubernetes")).refresh()
    assert open_ports(config) == [GATEWAYS_PORT, 22000, 22080, 22443]


def test_another_agent_takes_over_without_a_gap(config: Config) -> None:
    Guard(config).accept(document(("203.0.113.0/24", 0)))
    index = edge.attached(config)
    again = Guard(config)
    # Before its desired state is known, what is in force stays in force.
    again.refresh()
    assert (again.problems, in_force(config), edge.attached(config)) == ([], ["203.0.113.0/24"], index)
    again.accept(document())
    assert in_force(config) == []


def test_an_entry_ends_by_itself_while_the_control_plane_is_away(config: Config) -> None:
    now = [1000.0]
    guard = Guard(config, lambda: now[0])
    guard.accept(document(("203.0.113.0/24", 1060), ("198.51.100.0/24", 0)))
    assert in_force(config) == ["198.51.100.0/24", "203.0.113.0/24"]
    now[0] = 1061
    guard.refresh()
    assert in_force(config) == ["198.51.100.0/24"]


def test_an_interface_that_is_away_is_a_problem_until_it_is_back(config: Config) -> None:
    link("delete", NAME)
    guard = Guard(config)
    guard.accept(document(("203.0.113.0/24", 0)))
    assert len(guard.problems) == 1 and NAME in guard.problems[0]
    report = guard.report()
    assert report is not None and report["guarded"] is False
    link("add", NAME, "type", "veth", "peer", "name", f"{NAME}p")
    guard.refresh()
    assert (guard.problems, edge.attached(config) > 0) == ([], True)


def test_no_interface_named_any_more_is_no_guard_any_more(config: Config) -> None:
    Guard(config).accept(document(("203.0.113.0/24", 0)))
    off = Guard(replace(config, edge_interface=""))
    off.refresh()
    assert (off.problems, off.report(), edge.attached(config)) == ([], None, 0)
    assert not list(config.bpffs.glob("edge-*"))


def test_desired_state_from_before_there_was_a_list_has_none(config: Config) -> None:
    guard = Guard(config)
    guard.accept({})
    assert (guard.problems, in_force(config)) == ([], [])


@pytest.mark.parametrize("entries", [[["nonsense", 0]], [["203.0.113.0/24"]], "no list", [[None, None]]])
def test_a_list_that_cant_be_read_is_a_problem_and_changes_nothing(config: Config, entries: object) -> None:
    guard = Guard(config)
    guard.accept(document(("203.0.113.0/24", 0)))
    guard.accept({"edge": {"denied": entries}})
    assert len(guard.problems) == 1
    assert in_force(config) == ["203.0.113.0/24"]
