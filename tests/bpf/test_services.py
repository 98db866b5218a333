"""Load balancing at the socket: choice, weights, affinity, replies of datagrams, opting out."""

from __future__ import annotations

import socket
from collections import Counter

import pytest

from bpf import source
from bpf.slots import Backend, spread
from bpf.tables import Service
from dataplane.agent.namespaces import run_in
from tests.bpf.laboratory import TCP, UDP, Laboratory, Member

pytestmark = pytest.mark.root


@pytest.fixture
def four(laboratory: Laboratory) -> Laboratory:
    """`a` calls the service of `b`, behind which `b`, `c` and `d` are."""
    for number, name in enumerate("abcd"):
        member = laboratory.workload(name, 340 + number, 1040 + number)
        for protocol in (TCP, UDP):
            member.listen(protocol, 8080)
    laboratory.allow(*(("a", name, 8080, protocol) for name in "bcd" for protocol in (TCP, UDP)))
    return laboratory


def serve(laboratory: Laboratory, weights: dict[str, int], family: int = 4, **options) -> Member:  # type: ignore[no-untyped-def]
    """The service of `b` with these backends; returns who owns the address."""
    owner = laboratory.members["b"]
    address = owner.address(family, by_service=True)
    backends = tuple(
        Backend(laboratory.members[name].address(family), 8080, weight) for name, weight in weights.items()
    )
    laboratory.tables.set_services(
        [Service(0, address, 8080, protocol, backends, **options) for protocol in (TCP, UDP)]
    )
    return owner


def answers(laboratory: Laboratory, count: int, protocol: int = TCP, family: int = 4) -> Counter[str]:
    caller, owner = laboratory.members["a"], laboratory.members["b"]
    address = owner.address(family, by_service=True)
    return Counter(caller.call(address, 8080, protocol, patience=2) for _ in range(count))


@pytest.mark.parametrize("family", [4, 6])
def test_calls_spread_over_all_backends_by_weight(four: Laboratory, family: int) -> None:
    serve(four, {"b": 1, "c": 1, "d": 8}, family)
    got = answers(four, 200, family=family)
    assert set(got) == {"b", "c", "d"}
    assert got["d"] > got["b"] + got["c"]


def test_a_backend_of_weight_zero_gets_nothing_new(four: Laboratory) -> None:
    serve(four, {"b": 1, "c": 0})
    assert set(answers(four, 40)) == {"b"}


@pytest.mark.parametrize("protocol", [TCP, UDP])
def test_a_consistent_choice_is_the_same_for_every_call_of_a_caller(four: Laboratory, protocol: int) -> None:
    serve(four, {"b": 1, "c": 1, "d": 1}, choice="consistent")
    assert len(answers(four, 20, protocol)) == 1


def test_a_consistent_table_moves_few_callers_when_a_backend_goes() -> None:
    backends = [Backend(f"10.0.0.{n}", 80) for n in range(1, 6)]
    before, after = spread(backends, True), spread(backends[:-1], True)
    moved = sum(1 for old, new in zip(before, after, strict=False) if old != new and old != ("10.0.0.5", 80))
    assert len(before) == len(after)
    assert moved / len(before) < 0.1


def test_weights_share_the_slots_of_a_consistent_table() -> None:
    slots = Counter(spread([Backend("10.0.0.1", 80, 3), Backend("10.0.0.2", 80, 1)], True))
    assert 2.5 < slots["10.0.0.1", 80] / slots["10.0.0.2", 80] < 3.5


@pytest.mark.parametrize("family", [4, 6])
def test_a_caller_stays_with_its_backend_until_that_is_gone(four: Laboratory, family: int) -> None:
    serve(four, {"b": 1, "c": 1, "d": 1}, family, affinity=60)
    (first,) = answers(four, 20, family=family)
    # Another set with the same backend in it changes nothing for the caller.
    serve(four, {"b": 1, "c": 1, "d": 2}, family, affinity=60)
    assert set(answers(four, 20, family=family)) == {first}
    serve(four, {name: 1 for name in "bcd" if name != first}, family, affinity=60)
    (second,) = answers(four, 20, family=family)
    assert second != first


def test_affinity_ends_after_its_time(four: Laboratory) -> None:
    import time

    serve(four, {"b": 1, "c": 1, "d": 1}, affinity=1)
    seen = set()
    for _ in range(8):
        seen |= set(answers(four, 1))
        if len(seen) > 1:
            return
        time.sleep(1.1)
    pytest.fail("eight calls more than a second apart all went to one of three backends")


@pytest.mark.parametrize("family", [4, 6])
def test_a_datagram_socket_knows_the_replies_of_every_service_it_sends_to(
    four: Laboratory, family: int
) -> None:
    """More services than an answer takes, each with several backends: no reply shows a backend's address."""
    names = [f"{number}" for number in range(12)]
    network = four.config.services4 if family == 4 else four.config.services6
    addresses = [str(network[1060 + int(name)]) for name in names]
    backends = tuple(Backend(four.members[name].address(family), 8080) for name in "bcd")
    four.tables.set_services([Service(0, address, 8080, UDP, backends) for address in addresses])

    def talk() -> list[tuple[str, str]]:
        kind = socket.AF_INET if family == 4 else socket.AF_INET6
        with socket.socket(kind, socket.SOCK_DGRAM) as client:
            client.settimeout(2)
            found = []
            for _ in range(4):
                for address in addresses:
                    client.sendto(b"who", (address, 8080))
                    found.append((address, client.recvfrom(64)[1][0]))
            return found

    assert all(asked == answered for asked, answered in run_in(four.members["a"].namespace.path, talk))


def test_what_a_datagram_socket_knows_lives_and_ends_with_the_socket() -> None:
    """No table that something else can push it out of."""
    known = source.maps()
    assert known["translated"].kind == "sk_storage"
    evictable = {
        name for name, each in known.items() if "lru" in each.kind or (each.inner and "lru" in each.inner[0])
    }
    assert evictable <= {"conntrack", "affinity"}


def test_a_workload_reaches_itself_through_its_own_service(four: Laboratory) -> None:
    for family in (4, 6):
        owner = serve(four, {"b": 1}, family)
        for protocol in (TCP, UDP):
            assert owner.call(owner.address(family, by_service=True), 8080, protocol) == "b"


def test_who_opted_out_reaches_replicas_but_no_service(four: Laboratory) -> None:
    owner = serve(four, {"b": 1})
    caller = four.members["a"]
    space = caller.namespace
    four.tables.set_endpoint(
        space.ifindex, caller.identity, space.mac, space.host_mac, space.cookie, translate=False
    )
    four.denials()
    assert caller.call(owner.service4, 8080) == ""
    assert caller.call(owner.service4, 8080, UDP) == ""
    assert ("SERVICE_ON_WIRE", 8080) in four.denials()
    assert caller.call(owner.v4, 8080) == "b"


def test_what_is_in_force_is_read_back_by_another_process(four: Laboratory) -> None:
    from bpf.tables import Tables

    serve(four, {"b": 1, "c": 3}, choice="consistent", affinity=5)
    other = Tables(four.config)
    try:
        backends = (Backend(four.members["b"].v4, 8080, 1), Backend(four.members["c"].v4, 8080, 3))
        service = Service(0, four.members["b"].service4, 8080, TCP, backends, "consistent", 5)
        assert other.set_service(service) is False
        assert other.set_service(service._replace(affinity=6)) is True
    finally:
        other.close()
        four.tables.__dict__.pop("_cached_services")
