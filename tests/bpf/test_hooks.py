"""Each socket hook and each reason that it can give, by live calls: the kernel doesn't test-run these programs."""

from __future__ import annotations

import errno
import socket
import time

import pytest

from bpf.tables import ALLOW, DENY, EGRESS, External, Limit, Policy, Service
from dataplane.agent.namespaces import run_in
from tests.bpf.laboratory import TCP, UDP, Laboratory, Member

pytestmark = pytest.mark.root


@pytest.fixture
def pair(laboratory: Laboratory) -> tuple[Laboratory, Member, Member]:
    a, b = laboratory.workload("a", 300, 1024), laboratory.workload("b", 301, 1025)
    for protocol in (TCP, UDP):
        b.listen(protocol, 8080)
    laboratory.allow(("a", "b", 8080, TCP), ("a", "b", 8080, UDP))
    laboratory.serve(("b", 8080, TCP), ("b", 8080, UDP))
    laboratory.denials()
    return laboratory, a, b


def connect(member: Member, address: str, port: int) -> int:
    """The errno of a TCP connect; the hook's refusal comes at once."""

    def attempt() -> int:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with socket.socket(family, socket.SOCK_STREAM) as client:
            client.settimeout(2)
            return client.connect_ex((address, port))

    return run_in(member.namespace.path, attempt)


def send(member: Member, address: str, port: int) -> int:
    """The errno of an unconnected datagram."""

    def attempt() -> int:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with socket.socket(family, socket.SOCK_DGRAM) as client:
            try:
                client.sendto(b"who", (address, port))
            except OSError as error:
                return error.errno or -1
            return 0

    return run_in(member.namespace.path, attempt)


@pytest.mark.parametrize("family", [4, 6])
def test_an_application_sees_the_address_that_it_asked_for(pair, family: int) -> None:
    """connect, sendmsg, recvmsg and getpeername of one family."""
    _, a, b = pair
    service = (b.address(family, by_service=True), 8080)
    kind = socket.AF_INET if family == 4 else socket.AF_INET6

    def calls() -> tuple[list, list]:
        with socket.create_connection(service, timeout=2) as stream:
            named, said = stream.getpeername()[:2], stream.recv(8)
        with socket.socket(kind, socket.SOCK_DGRAM) as loose:
            loose.settimeout(2)
            loose.sendto(b"who", service)
            answer, sender = loose.recvfrom(8)
        with socket.socket(kind, socket.SOCK_DGRAM) as tied:
            tied.settimeout(2)
            tied.connect(service)
            tied.send(b"who")
            return [named, sender[:2], tied.getpeername()[:2]], [said, answer, tied.recv(8)]

    named, answers = run_in(a.namespace.path, calls)
    assert (named, answers) == ([service] * 3, [b"b"] * 3)


@pytest.mark.parametrize("family", [4, 6])
def test_a_connect_that_cannot_succeed_is_refused_at_once_with_its_reason(pair, family: int) -> None:
    laboratory, a, b = pair
    tables, config = laboratory.tables, laboratory.config
    four = family == 4
    nobody = str((config.workloads4 if four else config.workloads6)[9999])
    floored, node, closed, denied = (
        ("192.0.2.77", "192.0.2.10", "203.0.113.5", "198.51.100.7")
        if four
        else ("2001:db8:1::7", "2001:db8:1::a", "2001:db8:2::5", "2001:db8:3::7")
    )
    empty = b.address(family, by_service=True)
    service = Service(0, empty, 8081, TCP, ())
    tables.set_services([Service(0, empty, 8080, TCP, ((b.address(family), 8080),)), service])
    network, length = ("192.0.2.0/24", 32) if four else ("2001:db8:1::/48", 128)
    tables.set_floor([(network, "FLOOR"), (f"{node}/{length}", "NODE")])
    outside = [External(f"{denied}/{length}", 443, TCP, DENY, 9)]
    entries = [Policy(301, 8080, TCP, EGRESS, ALLOW, 1), Policy(301, 8082, TCP, EGRESS, DENY, 2)]
    tables.apply_identity(300, 1, entries, outside)
    laboratory.denials()
    wrong = {}
    for address, port, reason in (
        (empty, 9999, "NO_SERVICE"),
        (empty, 8081, "NO_BACKEND"),
        (nobody, 8080, "UNKNOWN_DESTINATION"),
        (b.address(family), 22, "NO_RULE"),
        (b.address(family), 8082, "DENIED"),
        ("224.0.0.251" if four else "ff02::fb%eth0", 443, "MULTICAST"),
        (floored, 443, "FLOOR"),
        (node, 443, "NODE"),
        (closed, 443, "EGRESS"),
        (denied, 443, "DENIED"),
    ):
        answer = connect(a, address, port)
        reasons = {r for r, p in laboratory.denials() if p == port}
        if (answer, reasons) != (errno.ECONNREFUSED, {reason}) and reason != "MULTICAST" or not answer:
            wrong[address, port] = (answer, reasons)
    assert wrong == {}


@pytest.mark.parametrize("family", [4, 6])
def test_a_datagram_to_a_service_that_cannot_be_is_refused_too(pair, family: int) -> None:
    laboratory, a, b = pair
    service = b.address(family, by_service=True)
    assert send(a, service, 8080) == 0
    assert send(a, service, 9999) == errno.EPERM
    assert ("NO_SERVICE", 9999) in laboratory.denials()
    laboratory.allow()
    assert send(a, service, 8080) == errno.EPERM
    assert ("NO_RULE", 8080) in laboratory.denials()


@pytest.mark.parametrize("family", [4, 6])
def test_one_connection_too_many_is_refused_and_one_that_ends_makes_room(pair, family: int) -> None:
    laboratory, a, b = pair
    laboratory.tables.set_limits({300: Limit(connections=1)})
    try:
        first = a.connected(b.address(family), 8080)
        assert connect(a, b.address(family), 8080) == errno.ECONNREFUSED
        assert ("CONNECTIONS", 8080) in laboratory.denials()
        first.close()
        until = time.monotonic() + 5  # it counts until both ends have closed
        while laboratory.tables.usage()[300].connections and time.monotonic() < until:
            time.sleep(0.05)
        assert connect(a, b.address(family), 8080) == 0
    finally:
        laboratory.tables.set_limits({})


@pytest.mark.parametrize("family", [4, 6])
def test_namespaces_that_are_not_the_platforms_are_left_alone(pair, family: int) -> None:
    """The test's own process: what it calls isn't judged by the hooks, its own loopback works."""
    laboratory, _, _ = pair
    address, kind = ("127.0.0.1", socket.AF_INET) if family == 4 else ("::1", socket.AF_INET6)
    with (
        socket.create_server((address, 0), family=kind) as server,
        socket.create_connection(server.getsockname()[:2], timeout=2) as client,
    ):
        assert client.getpeername()[:2] == server.getsockname()[:2]
        assert server.getsockname()[1] not in {port for _, port in laboratory.denials()}
