"""The node knows whether its kernel side works, by trying; and while it doesn't, nothing new starts."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import struct
import time
from collections.abc import Iterator

import pytest
from pyroute2 import IPRoute

from bpf import attach, layout, loader
from bpf import sys as bpf
from bpf.tables import ALLOW, EGRESS, Policy, Tables
from dataplane import addresses
from dataplane.agent import filters, watch
from dataplane.agent.kernel import Kernel
from dataplane.agent.watch import Watch
from infra.config import Config

pytestmark = pytest.mark.root
UPDATE_BATCH, DELETE_BATCH = 26, 27


@pytest.fixture(scope="module")
def kernel_side(kernel: Config) -> Iterator[Kernel]:
    made = Kernel(kernel)
    made.ensure_platform()
    yield made
    made.connections.close()
    made._tables.close()


@pytest.fixture
def watching(kernel_side: Kernel) -> Iterator[Watch]:
    made = Watch(kernel_side.config, kernel_side)
    made.check()
    assert made.problems == []
    yield made
    made.check()
    made.check()
    assert kernel_side.distrust == "", "the test left the kernel side broken"


def detach(config: Config, name: str) -> None:
    kind = loader.PROGRAMS[name][1]
    assert kind is not None
    root = os.open(loader.cgroup_root(), os.O_RDONLY)
    program = bpf.object_get(loader.pins(config) / "programs" / name)
    bpf.detach_cgroup(root, program, kind)
    os.close(program)
    os.close(root)


def test_until_the_test_was_made_nothing_is_trusted(kernel_side: Kernel) -> None:
    assert Watch(kernel_side.config, kernel_side).problems


@pytest.mark.parametrize(
    ("hook", "words"),
    [
        ("connect4", "TCP call to a service address over IPv4"),
        ("connect6", "TCP call to a service address over IPv6"),
        ("sendmsg4", "UDP call to a service address over IPv4"),
        ("sendmsg6", "UDP call to a service address over IPv6"),
        ("recvmsg4", "UDP call to a service address over IPv4"),
        ("recvmsg6", "UDP call to a service address over IPv6"),
        ("getpeername4", "TCP call to a service address over IPv4"),
        ("getpeername6", "TCP call to a service address over IPv6"),
    ],
)
def test_a_hook_that_is_missing_is_named_and_put_back(
    kernel_side: Kernel, watching: Watch, hook: str, words: str
) -> None:
    detach(kernel_side.config, hook)
    # The live test sees it by itself, whatever the list of what is attached says.
    assert any(words in problem for problem in kernel_side.selftest())
    watching.check()
    assert watching.problems == [f"kernel programs aren't attached: {hook}"]
    assert kernel_side.distrust
    watching.check()
    assert watching.problems == []
    assert kernel_side.distrust == ""
    assert loader.status(kernel_side.config)["hooks"][hook]


def test_programs_taken_off_an_interface_are_put_back_and_it_is_said(
    kernel_side: Kernel, watching: Watch
) -> None:
    config = kernel_side.config
    ifindex = next(i for i, name in kernel_side.interfaces().items() if name == "selftest-0")
    wanted = filters.current(config)
    with IPRoute() as ip:
        ip.tc("del", "clsact", ifindex)
    assert filters.programs([ifindex])[ifindex] == {"from_workload": [], "to_workload": []}
    assert any("left a workload" in problem for problem in kernel_side.selftest())
    watching.check()
    assert any("selftest-0" in problem and "put back" in problem for problem in watching.problems)
    assert {side: ids[0] for side, ids in filters.programs([ifindex])[ifindex].items()} == wanted
    assert kernel_side.selftest() == []


def test_one_side_alone_is_noticed(kernel_side: Kernel) -> None:
    ifindex = next(i for i, name in kernel_side.interfaces().items() if name == "selftest-1")
    with IPRoute() as ip:
        ip.tc("del-filter", "bpf", ifindex, 1, parent=0xFFFFFFF3, prio=1, protocol=3)
    assert any("reached a workload" in problem for problem in kernel_side.selftest())
    attach.attach(kernel_side.config, ifindex)
    assert kernel_side.selftest() == []


def test_interfaces_that_are_gone_are_nobodys_problem() -> None:
    assert filters.programs([999999]) == {}


def test_what_the_test_needs_is_allowed_to_nobody_else_and_survives_a_snapshot(
    kernel_side: Kernel, watching: Watch
) -> None:
    empty = {
        "floor": [],
        "addresses": {},
        "identities": {
            str(identity): {"cell": 0, "policy": [], "external": []}
            for identity in (3, 4, 6, *addresses.IDENTITY_BUILDS)
        },
        "services": [],
    }
    kernel_side.apply(empty)
    kernel_side.set_services([], set())
    assert kernel_side.selftest() == []


def test_the_tests_flows_are_nobodys_news(kernel_side: Kernel, watching: Watch) -> None:
    kernel_side.flows()
    assert kernel_side.selftest() == []
    found = {flow.source for flow in kernel_side.flows()}
    assert not found & set(addresses.IDENTITY_SELFTEST)


def test_failures_that_programs_count_are_said_for_a_while(
    kernel_side: Kernel, watching: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    counters = kernel_side._tables._maps["counters"]
    key = layout.U32.pack(layout.COUNTERS.index("socket storage failed"))
    before = counters.get(key)
    assert before is not None
    counters.set(key, b"".join(layout.U64.pack(7) for _ in range(len(before) // 8)))
    monkeypatch.setattr(watch, "REMEMBERED", 0.3)
    try:
        watching.check()
        assert watching.problems == ["the kernel's programs counted failures: socket storage failed"]
        assert kernel_side.counters()["socket storage failed"] >= 7
        assert kernel_side.distrust == "", "what runs is isolated all the same"
        watching.check()
        time.sleep(0.35)
        assert watching.problems == []
    finally:
        counters.set(key, before)


def test_a_table_that_is_full_keeps_the_old_rules_and_is_said(kernel_side: Kernel, tables: Tables) -> None:
    """The real map, filled up to its last entry with another identity's rules."""
    policy = kernel_side._tables._maps["policy"]
    old, fresh = (
        [Policy(70, 80, 6, EGRESS, ALLOW, 1)],
        [Policy(71, n, 6, EGRESS, ALLOW, 1) for n in range(64)],
    )
    boundary: dict = {
        "floor": [],
        "addresses": {},
        "services": [],
        "identities": {
            str(identity): {"cell": 0, "policy": [], "external": []}
            for identity in (3, 4, 6, *addresses.IDENTITY_BUILDS)
        },
    }
    rules = boundary["identities"]
    rules["77"] = {"cell": 1, "policy": [list(p) for p in old], "external": []}
    rules["78"] = {"cell": 1, "policy": [list(p) for p in old], "external": []}
    kernel_side.apply(boundary)
    # An epoch that isn't in force, as a crash leaves it: unused and in the way.
    filled = fill(policy)
    try:
        rules["77"]["policy"] = [list(p) for p in fresh]
        rules["78"]["policy"] = []
        with pytest.raises(Exception, match="identity 77 don't fit into the kernel's table, which is full"):
            kernel_side.apply(boundary)
        assert len(tables._index[77][0]) == 1, "the old rules are in force"
        assert tables._index[78][0] == {}, "what could be tightened was"
    finally:
        for first in range(0, len(filled), 4096):
            with contextlib.suppress(FileNotFoundError):  # the last ones didn't fit
                batch(DELETE_BATCH, policy, filled[first : first + 4096])
    kernel_side.apply(boundary)
    again = Tables(kernel_side.config)
    assert len(again._index[77][0]) == 64
    again.close()
    del rules["77"], rules["78"]
    kernel_side.apply(boundary)


def batch(command: int, policy: bpf.Map, keys: list[bytes]) -> None:
    """BPF_MAP_UPDATE_BATCH or BPF_MAP_DELETE_BATCH: one by one a million of them takes a minute."""
    packed = ctypes.create_string_buffer(b"".join(keys))
    values = ctypes.create_string_buffer(layout.RULE.pack(0, ALLOW) * len(keys))
    where = ctypes.addressof(packed), ctypes.addressof(values) if command == UPDATE_BATCH else 0
    bpf._call(command, struct.pack("=QQQQIIQQ", 0, 0, *where, len(keys), policy.descriptor, 0, 0))


def fill(policy: bpf.Map) -> list[bytes]:
    """Entries of an identity that nobody has, until not one more fits; their keys."""
    keys = [
        layout.POLICY_KEY.pack(4_000_000_000, 1, number, 1, 6, EGRESS) for number in range(policy.max_entries)
    ]
    for first in range(0, len(keys), 65536):
        try:
            batch(UPDATE_BATCH, policy, keys[first : first + 65536])
        except OSError as error:
            assert error.errno in (errno.E2BIG, errno.ENOSPC)
    return keys
