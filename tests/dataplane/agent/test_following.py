"""Differences reach the kernel ahead of everything else, and what comes after them undoes nothing."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

import pytest

from bpf import layout
from bpf.tables import ALLOW, EGRESS, INGRESS
from dataplane.agent import following, kernel, network, parts
from dataplane.agent.kernel import Kernel, KernelError
from dataplane.agent.state import State
from infra.config import Config
from tests.bpf import conftest as bpf

TCP = 6
WEB, API, OTHER = "70001", "70002", "70003"
FIRST_SERVICE = 60000


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kernel]:
    config = Config(home=tmp_path_factory.mktemp("home"), net=bpf.APART)
    bpf.remove(config)
    bpf.load(config)
    network.ensure_host(config)
    made = Kernel(config)
    try:
        made.ensure_platform()
        yield made
    finally:
        made.connections.close()
        made._tables.close()
        bpf.remove(config)


def rules(*peers: tuple[str, int, int]) -> dict[str, Any]:
    return {
        "cell": 1,
        "policy": [[int(peer), 8080, TCP, direction, ALLOW, rule] for peer, direction, rule in peers],
        "external": [],
    }


def boundary(identities: dict[str, Any], services: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    platform = {str(i): {"cell": 0, "policy": [], "external": []} for i in (3, 4, 6, 16, 17)}
    return {
        "identities": {**platform, **identities}, "addresses": {}, "services": services or [], "names": {},
        "external_names": {}, "limits": {}, "floor": [], "gateway": {},
    }  # fmt: skip


def in_force(kernel: Kernel, identity: str) -> set[int] | None:
    """Remote identities that the kernel's table has for this one; None where it knows nobody."""
    key = layout.U32.pack(int(identity))
    current = kernel._tables._maps["identities"].get(key)
    if current is None:
        return None
    epoch = layout.IDENTITY.unpack(current)[0]
    found = set()
    for raw in kernel._tables._maps["policy"].keys():
        local, at, remote, *_ = layout.POLICY_KEY.unpack(raw)
        if (local, at) == (int(identity), epoch):
            found.add(remote)
    return found


OPEN = {WEB: rules((API, EGRESS, 1)), API: rules((WEB, INGRESS, 1))}
CLOSED = {WEB: rules(), API: rules()}


@pytest.fixture
def opened(node: Kernel) -> Kernel:
    node.follow(None, 0)
    node.apply(boundary(copy.deepcopy(OPEN)), None, 1)
    return node


@pytest.mark.root
def test_rules_are_in_force_before_the_rest_of_their_generation(opened: Kernel) -> None:
    opened.follow({**CLOSED, OTHER: rules((WEB, EGRESS, 2))}, 2)
    assert in_force(opened, WEB) == set()
    assert in_force(opened, OTHER) == {int(WEB)}
    opened.follow({OTHER: None}, 3)
    assert in_force(opened, OTHER) is None


@pytest.mark.root
def test_an_earlier_generation_that_is_applied_late_opens_nothing_again(opened: Kernel) -> None:
    opened.follow({**CLOSED, OTHER: None}, 3)
    late = boundary({**OPEN, OTHER: rules((WEB, EGRESS, 2))})
    opened.apply(late, {**OPEN, OTHER: rules((WEB, EGRESS, 2))}, 2)
    assert (in_force(opened, WEB), in_force(opened, API), in_force(opened, OTHER)) == (set(), set(), None)
    opened.apply(boundary(CLOSED), CLOSED, 3)
    assert in_force(opened, WEB) == set()
    opened.apply(boundary(OPEN), OPEN, 4)
    assert in_force(opened, WEB) == {int(API)}, "what is ahead is so until its generation is applied"


@pytest.mark.root
def test_an_earlier_generation_that_is_applied_late_and_whole_opens_nothing_again(opened: Kernel) -> None:
    opened.follow(CLOSED, 3)
    opened.apply(boundary(OPEN), None, 2)
    assert in_force(opened, WEB) == set()


@pytest.mark.root
def test_a_floor_that_doesnt_fit_is_said_and_closes_what_fits(
    opened: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An interface that gets thousands of addresses ends neither reports nor anything else that the agent does."""
    opened.apply({**boundary(OPEN), "floor": [["198.18.0.0/15", "FLOOR"]]}, None, 1)
    table = opened._tables._maps["floor_prefixes"]
    put, own = table.set, [("203.0.113.1/32", "NODE"), ("203.0.113.2/32", "NODE")]

    def full(key: bytes, value: bytes) -> None:
        if key == layout.FLOOR_KEY.pack(*layout.pack_network("203.0.113.2/32")):
            raise OSError(28, "full")
        put(key, value)

    monkeypatch.setattr(kernel, "node_addresses", lambda config: own)
    with monkeypatch.context() as patched:
        patched.setattr(table, "set", full)
        opened.refresh_floor()
        assert any("the networks that nobody may reach don't fit" in text for text in opened.health())
        with pytest.raises(KernelError, match="don't fit into the kernel's table, which is full"):
            opened.apply(boundary(CLOSED) | {"floor": [["198.18.0.0/15", "FLOOR"]]}, None, 2)
    closed = {layout.pack_network(text) for text in ("198.18.0.0/15", "203.0.113.1/32")}
    assert closed <= {layout.FLOOR_KEY.unpack(key) for key in table.keys()}
    opened.refresh_floor()
    assert opened.health() == []
    assert ("203.0.113.2/32", "NODE") in opened.floor


@pytest.mark.root
def test_who_is_taken_out_and_back_before_either_is_applied_keeps_its_limits(opened: Kernel) -> None:
    limited = {**boundary(OPEN), "limits": {WEB: [0, 0, 0, 7]}}
    opened.apply(limited, None, 1)
    opened.emptied()
    opened.follow({WEB: None}, 2)
    opened.follow({WEB: OPEN[WEB]}, 3)
    opened.apply(limited, {WEB: OPEN[WEB]}, 3)
    raw = opened._tables._maps["limits"].get(layout.U32.pack(int(WEB)))
    assert raw is not None and layout.LIMIT.unpack(raw)[-1] == 7
    current = opened._tables._maps["identities"].get(layout.U32.pack(int(WEB)))
    assert current is not None and layout.IDENTITY.unpack(current)[-1] & layout.IDENTITY_LIMITED
    assert (opened.emptied(), opened.emptied()) == ({int(WEB)}, set())


@pytest.mark.root
def test_generations_that_are_numbered_anew_hold_up_nothing(opened: Kernel) -> None:
    opened.follow(CLOSED, 1000)
    opened.follow(None, 1)
    opened.apply(boundary(OPEN), None, 1)
    assert in_force(opened, WEB) == {int(API)}


@pytest.mark.root
def test_only_what_differs_is_looked_at_and_what_is_gone_goes(opened: Kernel) -> None:
    grown = {**OPEN, OTHER: rules((WEB, EGRESS, 2))}
    opened.apply(boundary(grown), {OTHER: grown[OTHER]}, 2)
    assert in_force(opened, OTHER) == {int(WEB)}
    assert in_force(opened, WEB) == {int(API)}
    opened.apply(boundary(OPEN), {OTHER: None}, 3)
    assert in_force(opened, OTHER) is None
    assert in_force(opened, WEB) == {int(API)}


@pytest.mark.root
def test_after_a_failure_everything_is_looked_at(opened: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:

        def full(*_: Any, **__: Any) -> bool:
            raise OSError(7, "full")

        patched.setattr(opened._tables, "apply_identity", full)
        opened.follow(CLOSED, 2)
        with pytest.raises(KernelError):
            opened.apply(boundary(CLOSED), CLOSED, 2)
    assert in_force(opened, WEB) == {int(API)}
    opened.apply(boundary(CLOSED), {}, 3)
    assert in_force(opened, WEB) == set()


@pytest.mark.root
def test_services_follow_differences_and_failures(opened: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    def service(number: int, backend: str) -> dict[str, Any]:
        address = str(opened.config.services4[FIRST_SERVICE + number])
        backends = [["r1", str(opened.config.workloads4[9000]), 8080]] if backend else []
        return {"consumer": 0, "address": address, "port": 80, "protocol": TCP, "backends": backends,
                "choice": "random", "affinity": 0, "weights": []}  # fmt: skip

    def kept() -> int:
        return len(opened._tables._maps["services"].keys())

    opened.set_services([], None)
    own = kept()
    assert opened.set_services([service(1, "r1"), service(2, "r1")], None) == 2
    assert opened.set_services([service(1, "r1"), service(2, "r1")], None) == 0
    assert opened.set_services([service(1, ""), service(3, "r1")], None) == 3
    assert kept() == own + 2
    with monkeypatch.context() as patched:

        def full(*_: Any, **__: Any) -> bool:
            raise OSError(7, "full")

        patched.setattr(opened._tables, "set_service", full)
        with pytest.raises(KernelError):
            opened.set_services([service(1, "r1")], None)
    assert opened.set_services([service(1, "r1")], None) == 2
    assert kept() == own + 1


@pytest.mark.root
def test_services_that_are_the_same_arent_looked_at_and_backends_that_left_are_let_go_all_the_same(
    opened: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = str(opened.config.services4[FIRST_SERVICE + 7])

    def said(port: int) -> Any:
        backends = [["r1", str(opened.config.workloads4[9000]), 8080]]
        service = {"consumer": 0, "address": address, "port": port, "protocol": TCP, "backends": backends}
        unit = parts.encode({"endpoints": [], "boundary": {"services": [service]}})
        return parts.Document(1, 1, {"1": unit})["boundary"]

    read: list[int] = []
    put = opened.set_services

    def counted(*arguments: Any) -> int:
        read.append(1)
        return put(*arguments)

    monkeypatch.setattr(opened, "set_services", counted)
    opened.serve(said(80), {"r1"})
    assert opened.serve(said(80), {"r1"}) == 0 and len(read) == 1
    assert opened.serve(said(81), {"r1"}) == 2 and opened.serve(said(81), set()) == 1
    assert len(read) == 3
    opened.backend_left("r1", int(WEB), ("192.0.2.1", "2001:db8::1"))
    opened.serve(said(81), set())
    assert not opened._leaving and len(read) == 3
    put([], None)
    assert opened.serve(said(81), set()) == 1, "what somebody else put there isn't believed to be the same"


# Which rules differ.


def state(generation: int, **units: dict[str, Any]) -> State:
    found = {
        number.removeprefix("u"): json.dumps(
            {"endpoints": [], "boundary": {"identities": identities}}
        ).encode()
        for number, identities in units.items()
    }
    return State(1, generation, f"m{generation}", found)


@pytest.mark.root
def test_rules_of_the_platform_are_put_together_from_units_and_in_force_with_a_difference(
    opened: Kernel,
) -> None:
    def told(port: int) -> Any:
        own = boundary(OPEN)
        own["identities"]["4"] = {
            "cell": 0,
            "policy": [[int(WEB), port, TCP, EGRESS, ALLOW, 9]],
            "external": [],
        }
        more = {"identities": {"4": {"cell": 0, "policy": [[int(API), port, TCP, EGRESS, ALLOW, 9]]}}}
        units = {"0": {"endpoints": [], "boundary": own}, "1": {"endpoints": [], "boundary": more}}
        return parts.Document(1, 1, {n: parts.encode(unit) for n, unit in units.items()})["boundary"]

    opened.apply(told(53), None, 2)
    assert in_force(opened, "4") == {int(WEB), int(API)}
    opened.apply(told(54), {}, 3)
    assert {key[1] for key in opened._tables._index[4][0]} == {54}
    assert opened._tables.callers(int(API)) == {int(WEB)}


def test_what_differs_is_what_changed_units_say() -> None:
    before = state(4, u0={"3": rules()}, u1={WEB: rules(), API: rules()}, u2={OTHER: rules()})
    after = State(1, 5, "m5", {**before.units})
    after.units["1"] = state(5, u1={WEB: rules((API, EGRESS, 1))}).units["1"]
    after.units["0"] = state(5, u0={"3": rules((WEB, EGRESS, 1))}).units["0"]
    assert following.rules(before, after, 4) == {WEB: rules((API, EGRESS, 1)), API: None}
    assert following.rules(before, after, 0) is None
    assert following.rules(before, after, 3) is None
    del after.units["2"]
    assert (following.rules(before, after, 4) or {})[OTHER] is None


def test_generations_that_were_skipped_count_all_together() -> None:
    reached: dict[int, following.Rules | None] = {
        5: {WEB: rules()},
        6: {WEB: None, API: rules()},
        7: {OTHER: None},
    }
    assert following.merged(reached, 6) == {WEB: None, API: rules()}
    assert list(reached) == [7]
    assert following.merged({5: None, 6: {WEB: None}}, 6) is None
    assert following.merged({}, 6) == {}
