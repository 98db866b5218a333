"""Connections that may not go on are ended at both ends; all others go on."""

from __future__ import annotations

import errno
import socket
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from bpf import layout
from bpf.tables import ALLOW, AUDIT, DENY, EGRESS, INGRESS, External, Policy
from dataplane.agent import network, sockets
from dataplane.agent.connections import Backend, Connections
from dataplane.agent.namespaces import run_in
from dataplane.agent.verdicts import Verdicts
from infra.config import Config
from tests.bpf.laboratory import TCP, UDP, Laboratory, Member

pytestmark = pytest.mark.root
ALICE, BOB, CAROL = 400, 401, 402
PORT, OTHER = 8080, 8081


@pytest.fixture
def connections(kernel: Config, laboratory: Laboratory) -> Iterator[Connections]:
    """Alice may call Bob on two ports; all three are known."""
    made = Connections(kernel)
    for number, (name, identity) in enumerate((("alice", ALICE), ("bob", BOB), ("carol", CAROL))):
        member = laboratory.workload(name, identity, 9100 + number)
        made.placed(name, member.namespace.path, member.namespace.ifindex, {identity})
    for protocol in (TCP, UDP):
        for port in (PORT, OTHER):
            laboratory.members["bob"].listen(protocol, port)
    laboratory.allow(*both(PORT), *both(OTHER))
    yield made
    made.close()


def both(port: int) -> list[tuple[str, str, int, int]]:
    return [("alice", "bob", port, TCP), ("alice", "bob", port, UDP)]


def opened(member: Member, address: str, port: int, kind: int = socket.SOCK_STREAM) -> socket.socket:
    """A connected socket that has heard from the other end."""

    def attempt() -> socket.socket:
        made = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, kind)
        made.settimeout(2)
        made.connect((address, port))
        if kind == socket.SOCK_DGRAM:
            made.send(b"who")
        assert made.recv(64)
        return made

    return run_in(member.namespace.path, attempt)


def goes_on(client: socket.socket) -> bool:
    client.sendall(b"on")
    return bool(client.recv(64))


def error_of(client: socket.socket) -> int | None:
    """What somebody who waits for data is told; None for nothing yet."""
    client.setblocking(False)
    try:
        client.recv(64)
    except BlockingIOError:
        return None
    except OSError as error:
        return error.errno
    finally:
        client.settimeout(2)
    return 0


def eventually(true: Callable[[], bool], seconds: float = 1.0) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if true():
            return True
        time.sleep(0.01)
    return False


def _aborted(client: socket.socket) -> bool:
    return error_of(client) == errno.ECONNABORTED


def ends(member: Member, port: int) -> list[sockets.Socket]:
    """A provider's side of what is open to a port."""
    return [s for s in sockets.listing(member.namespace.path) if s.local_port == port]


KINDS = [(kind, form) for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM) for form in ("4", "6", "mapped")]


@pytest.mark.parametrize(("kind", "form"), KINDS)
def test_what_a_change_forbids_is_ended_at_both_ends_and_the_rest_goes_on(
    laboratory: Laboratory, connections: Connections, kind: int, form: str
) -> None:
    alice, bob = laboratory.members["alice"], laboratory.members["bob"]
    address = {"4": bob.v4, "6": bob.v6, "mapped": f"::ffff:{bob.v4}"}[form]
    cut, kept = opened(alice, address, PORT, kind), opened(alice, address, OTHER, kind)
    laboratory.allow(*both(OTHER))
    connections.changed({ALICE, BOB})
    assert eventually(lambda: error_of(cut) == errno.ECONNABORTED)
    assert goes_on(kept)
    if kind == socket.SOCK_STREAM:
        assert eventually(lambda: not ends(bob, PORT)), "the provider still waits"
        assert ends(bob, OTHER)


@pytest.mark.parametrize("form", ["4", "6"])
def test_over_a_service_address_too(laboratory: Laboratory, connections: Connections, form: str) -> None:
    alice, bob = laboratory.members["alice"], laboratory.members["bob"]
    laboratory.serve(("bob", PORT, TCP), ("bob", OTHER, TCP), ("bob", PORT, UDP), ("bob", OTHER, UDP))
    address = bob.service4 if form == "4" else bob.service6
    kinds = (socket.SOCK_STREAM, socket.SOCK_DGRAM)
    cut = [opened(alice, address, PORT, kind) for kind in kinds]
    kept = [opened(alice, address, OTHER, kind) for kind in kinds]
    laboratory.allow(*both(OTHER))
    assert connections.end_forbidden({ALICE}) == 3
    assert [error_of(each) for each in cut] == [errno.ECONNABORTED] * 2
    assert all(goes_on(each) for each in kept)


def test_the_other_end_is_told_even_if_only_one_sides_entries_changed(
    laboratory: Laboratory, connections: Connections
) -> None:
    alice, bob = laboratory.members["alice"], laboratory.members["bob"]
    client = opened(alice, bob.v4, PORT)
    laboratory.tables.apply_identity(BOB, 1, [])
    connections.end_forbidden({BOB})
    assert error_of(client) in (errno.ECONNABORTED, errno.ECONNRESET)
    assert not ends(bob, PORT)


def test_identities_that_didnt_change_arent_looked_at(
    laboratory: Laboratory, connections: Connections
) -> None:
    alice, bob = laboratory.members["alice"], laboratory.members["bob"]
    client = opened(alice, bob.v4, PORT)
    laboratory.allow()
    assert connections.end_forbidden({CAROL}) == 0
    assert error_of(client) is None
    assert connections.end_forbidden({0}) == 2  # everybody's


def test_listeners_unconnected_sockets_and_the_loopback_stay(
    laboratory: Laboratory, connections: Connections
) -> None:
    bob = laboratory.members["bob"]
    own, through = opened(bob, "127.0.0.1", PORT), opened(bob, bob.v6, PORT)
    laboratory.allow()
    connections.end_forbidden({0})
    assert goes_on(own) and goes_on(through)
    laboratory.allow(*both(PORT))
    assert laboratory.members["alice"].call(bob.v4, PORT) == "bob"
    assert laboratory.members["alice"].call(bob.v6, PORT, UDP) == "bob"


def test_who_has_no_entries_any_more_has_no_connections(
    laboratory: Laboratory, connections: Connections
) -> None:
    alice, bob = laboratory.members["alice"], laboratory.members["bob"]
    client = opened(alice, bob.v6, PORT)
    laboratory.tables.remove_identity(ALICE)
    connections.end_forbidden({ALICE})
    assert error_of(client) == errno.ECONNABORTED


def test_a_call_that_is_under_way_is_ended(laboratory: Laboratory, connections: Connections) -> None:
    alice, carol = laboratory.members["alice"], laboratory.members["carol"]
    # Nobody answers: the entry is only the caller's.
    laboratory.tables.apply_identity(ALICE, 1, [Policy(CAROL, PORT, TCP, EGRESS, ALLOW, 7)])

    def start() -> socket.socket:
        made = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        made.setblocking(False)
        made.connect_ex((carol.v4, PORT))
        return made

    calling = run_in(alice.namespace.path, start)
    laboratory.tables.apply_identity(ALICE, 1, [])
    connections.end_forbidden({ALICE})
    assert calling.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ECONNABORTED


@pytest.mark.parametrize("form", ["4", "6", "mapped"])
def test_a_backend_that_is_gone_leaves_nobody_waiting(
    laboratory: Laboratory, connections: Connections, form: str
) -> None:
    alice, bob = laboratory.members["alice"], laboratory.members["bob"]
    address = {"4": bob.v4, "6": bob.v6, "mapped": f"::ffff:{bob.v4}"}[form]
    clients = [opened(alice, address, PORT, kind) for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM)]
    # Its namespace disappears with everything in it: no FIN, no reset, no ICMP.
    network.destroy(laboratory.config, "bob", 9101)
    assert [error_of(each) for each in clients] == [None, None]
    connections.left(Backend("bob", (bob.v4, bob.v6), frozenset({ALICE})))
    found = [eventually(partial(_aborted, client)) for client in clients]
    assert found == [True, True]


def test_only_who_may_have_called_is_looked_at_and_only_that_backends_clients_are_ended(
    laboratory: Laboratory, connections: Connections
) -> None:
    alice, bob, carol = (laboratory.members[name] for name in ("alice", "bob", "carol"))
    carol.listen(TCP, PORT)
    laboratory.allow(*both(PORT), ("alice", "carol", PORT, TCP))
    to_bob, to_carol = opened(alice, bob.v4, PORT), opened(alice, carol.v4, PORT)
    backend = Backend("bob", (bob.v4, bob.v6), frozenset({CAROL}))
    assert connections.end_clients(backend) == 0
    connections.end_clients(Backend("bob", (bob.v4, bob.v6), frozenset({ALICE})))
    assert error_of(to_bob) == errno.ECONNABORTED
    assert goes_on(to_carol)


def test_what_an_ended_process_wrote_is_still_delivered(
    laboratory: Laboratory, connections: Connections
) -> None:
    alice, bob = laboratory.members["alice"], laboratory.members["bob"]

    def listen() -> socket.socket:
        made = socket.create_server((bob.v4, 9999))
        made.settimeout(2)
        return made

    laboratory.allow(("alice", "bob", 9999, TCP))
    server = run_in(bob.namespace.path, listen)
    client = run_in(alice.namespace.path, lambda: socket.create_connection((bob.v4, 9999), timeout=2))
    answer, _ = server.accept()
    answer.setblocking(False)
    sent = 0
    while True:  # more than the client's side takes, as nobody reads yet
        try:
            sent += answer.send(bytes(65536))
        except BlockingIOError:
            break
    answer.close()
    server.close()
    assert connections.delivering("bob")
    connections.end_clients(Backend("bob", (bob.v4, bob.v6), frozenset({ALICE})))
    received = 0
    while chunk := client.recv(1 << 20):
        received += len(chunk)
    assert received == sent
    assert eventually(lambda: not connections.delivering("bob"))


def test_a_process_that_is_stuck_loses_its_ends_too(laboratory: Laboratory, connections: Connections) -> None:
    alice, bob = laboratory.members["alice"], laboratory.members["bob"]
    client = opened(alice, bob.v4, PORT)
    connections.end_clients(Backend("bob", (bob.v4, bob.v6), frozenset({ALICE}), stuck=True))
    assert error_of(client) == errno.ECONNABORTED
    assert not ends(bob, PORT)


def test_of_a_gateways_many_identities_only_the_one_that_changed_loses_connections(
    laboratory: Laboratory, connections: Connections
) -> None:
    """A gateway has an address for each cell in one namespace: consumer → gateway → provider."""
    alice, bob, carol = (laboratory.members[name] for name in ("alice", "bob", "carol"))
    config, tables = laboratory.config, laboratory.tables
    first, second = 403, 404
    doors = [
        network.Address(str(config.workloads4[9120 + n]), str(config.workloads6[9120 + n]), identity)
        for n, identity in enumerate((first, second))
    ]
    network.set_addresses(tables, bob.namespace, doors)
    connections.placed("bob", bob.namespace.path, bob.namespace.ifindex, {BOB, first, second})
    tables.forget_caller(bob.namespace.cookie)  # as a gateway's: it calls as many
    carol.listen(TCP, PORT)

    def put(*open_to_alice: int) -> None:
        out = [Policy(identity, PORT, TCP, EGRESS, ALLOW, 1) for identity in open_to_alice]
        tables.apply_identity(ALICE, 1, out)
        for identity in (first, second):
            entries = [Policy(CAROL, PORT, TCP, EGRESS, ALLOW, 1)]
            if identity in open_to_alice:
                entries.append(Policy(ALICE, PORT, TCP, INGRESS, ALLOW, 1))
            tables.apply_identity(identity, 1, entries)
        tables.apply_identity(CAROL, 1, [Policy(n, PORT, TCP, INGRESS, ALLOW, 1) for n in (first, second)])

    def upstream(address: str) -> socket.socket:
        return run_in(
            bob.namespace.path,
            lambda: socket.create_connection((carol.v4, PORT), timeout=2, source_address=(address, 0)),
        )

    put(first, second)
    down = [opened(alice, door.v6, PORT) for door in doors]
    up = [upstream(door.v4) for door in doors]
    put(second)
    connections.changed({ALICE, first, CAROL})
    assert eventually(lambda: error_of(down[0]) == errno.ECONNABORTED)
    assert eventually(lambda: len([s for s in ends(bob, PORT) if s.remote_port != PORT]) == 1)
    # What the gateway has to providers serves other consumers too.
    assert goes_on(down[1]) and all(goes_on(each) for each in up)
    # An address that is taken away takes its connections with it.
    network.set_addresses(tables, bob.namespace, [], [(doors[1].v4, doors[1].v6)])
    connections.end_forbidden({second})
    with pytest.raises(OSError):
        while up[1].recv(64):
            pass
    assert goes_on(up[0])
    for identity in (first, second):
        tables.remove_identity(identity)
    for made in (*down, *up):
        made.close()


def test_a_namespace_that_is_gone_is_no_error(laboratory: Laboratory, connections: Connections) -> None:
    connections.placed("nobody", Path("/run/netns/cy-no-such"), 999999, {ALICE})
    alice, bob = laboratory.members["alice"], laboratory.members["bob"]
    client = opened(alice, bob.v4, PORT)
    laboratory.allow()
    connections.changed({ALICE, BOB})
    assert eventually(lambda: error_of(client) == errno.ECONNABORTED)
    assert connections.problem == ""


# The judgement itself.
def seen(local: Member, remote: str, port: int, protocol: int = TCP, own_port: int = 50000) -> sockets.Socket:
    family = socket.AF_INET6 if ":" in remote else socket.AF_INET
    here = local.v6 if ":" in remote else local.v4
    return sockets.Socket(
        family, protocol, 1, layout.pack_address(here), own_port, layout.pack_address(remote), port, b""
    )


@pytest.fixture
def verdicts(kernel: Config, connections: Connections) -> Iterator[Verdicts]:
    made = Verdicts(kernel)
    yield made
    made.close()


def test_the_judgement_is_the_kernels(laboratory: Laboratory, verdicts: Verdicts) -> None:
    alice, bob, carol = (laboratory.members[name] for name in ("alice", "bob", "carol"))
    tables = laboratory.tables
    cases = {
        "a port": [Policy(BOB, PORT, TCP, EGRESS, ALLOW, 1)],
        "any port": [Policy(BOB, 0, TCP, EGRESS, ALLOW, 1)],
        "anybody": [Policy(0, PORT, TCP, EGRESS, ALLOW, 1)],
        "another protocol": [Policy(BOB, PORT, UDP, EGRESS, ALLOW, 1)],
        "another port": [Policy(BOB, OTHER, TCP, EGRESS, ALLOW, 1)],
        "another direction": [Policy(BOB, PORT, TCP, INGRESS, ALLOW, 1)],
        "refused": [Policy(BOB, 0, TCP, EGRESS, ALLOW, 1), Policy(BOB, PORT, TCP, EGRESS, DENY, 2)],
        "audited": [Policy(BOB, PORT, TCP, EGRESS, AUDIT, 1)],
        "audited and refused": [
            Policy(BOB, PORT, TCP, EGRESS, AUDIT, 1),
            Policy(0, PORT, TCP, EGRESS, DENY, 2),
        ],
        "nothing": [],
    }
    tables.apply_identity(BOB, 1, [Policy(0, 0, TCP, INGRESS, ALLOW, 1)])
    tables.apply_identity(CAROL, 1, [Policy(0, 0, TCP, INGRESS, ALLOW, 1)])
    carol.listen(TCP, PORT)
    found = {}
    for name, entries in cases.items():
        tables.apply_identity(ALICE, 1, entries)
        for peer in (bob, carol):
            for address in (peer.v4, peer.v6):
                reached = bool(alice.call(address, PORT))
                assert verdicts.allowed(seen(alice, address, PORT)) == reached, (name, peer.name, address)
                found[name, peer.name] = reached
    assert {key for key, reached in found.items() if reached} == {
        ("a port", "bob"), ("any port", "bob"), ("anybody", "bob"), ("anybody", "carol"),
        ("audited", "bob"),
    }  # fmt: skip


def test_the_provider_is_judged_by_what_may_come_in(laboratory: Laboratory, verdicts: Verdicts) -> None:
    alice, bob = laboratory.members["alice"], laboratory.members["bob"]
    assert verdicts.allowed(seen(bob, alice.v4, 50000, own_port=PORT))
    assert not verdicts.allowed(seen(bob, alice.v4, 50000, own_port=9))
    assert not verdicts.allowed(seen(bob, alice.v4, PORT))


def test_outside_networks_and_the_floor(laboratory: Laboratory, verdicts: Verdicts) -> None:
    alice, tables = laboratory.members["alice"], laboratory.tables
    outside = [External("198.51.100.0/24", 443, TCP, ALLOW, 1), External("2001:db8::/32", 0, UDP, ALLOW, 2)]
    tables.apply_identity(ALICE, 1, [], outside)
    assert verdicts.allowed(seen(alice, "198.51.100.7", 443))
    assert not verdicts.allowed(seen(alice, "198.51.100.7", 80))
    assert not verdicts.allowed(seen(alice, "198.51.101.7", 443))
    assert verdicts.allowed(seen(alice, "2001:db8::1", 53, UDP))
    tables.learn(ALICE, "192.0.2.9", 443, TCP, 3)
    assert verdicts.allowed(seen(alice, "192.0.2.9", 443))
    assert not verdicts.allowed(seen(alice, "192.0.2.9", 80))
    assert not verdicts.allowed(seen(laboratory.members["bob"], "192.0.2.9", 443))
    tables.forget_learned(ALICE, "192.0.2.9", 443, TCP)
    assert not verdicts.allowed(seen(alice, "192.0.2.9", 443))
    tables.set_floor([("198.51.100.7/32", "FLOOR")])
    assert not verdicts.allowed(seen(alice, "198.51.100.7", 443))
    assert verdicts.allowed(seen(alice, "198.51.100.8", 443))


def test_callers_from_outside_are_the_world_or_the_node(laboratory: Laboratory, verdicts: Verdicts) -> None:
    alice, tables = laboratory.members["alice"], laboratory.tables
    tables.apply_identity(ALICE, 1, [Policy(2, PORT, TCP, INGRESS, ALLOW, 1)])
    caller = seen(alice, "198.51.100.7", 50000, own_port=PORT)
    assert verdicts.allowed(caller)
    tables.set_floor([("198.51.100.7/32", "NODE")])
    assert not verdicts.allowed(caller)
    tables.apply_identity(ALICE, 1, [Policy(1, PORT, TCP, INGRESS, ALLOW, 1)])
    assert verdicts.allowed(caller)


def test_a_datagram_socket_that_only_asked_for_its_address_is_left_alone(
    laboratory: Laboratory, verdicts: Verdicts
) -> None:
    alice, bob = laboratory.members["alice"], laboratory.members["bob"]
    assert verdicts.allowed(seen(alice, bob.service4, 53, UDP))
