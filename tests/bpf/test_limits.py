"""Limits of components over real sockets: they bite, with their reason, and nobody else notices."""

from __future__ import annotations

import contextlib
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from bpf import attach
from bpf.tables import Limit, Tables
from dataplane.agent.namespaces import run_in
from tests.bpf.conftest import load
from tests.bpf.laboratory import TCP, UDP, Laboratory, Member

pytestmark = pytest.mark.root
A, B, C = 300, 301, 302
PORT = 8080
#: The largest packet that a veth carries; a bucket holds two of them.
LARGEST = 65536


@pytest.fixture
def trio(laboratory: Laboratory) -> Iterator[tuple[Laboratory, Member, Member, Member]]:
    """``a`` and ``c`` call ``b``."""
    a, b, c = (laboratory.workload(name, A + n, 1024 + n) for n, name in enumerate("abc"))
    b.listen(TCP, PORT)
    laboratory.allow(*((name, "b", PORT, protocol) for name in "ac" for protocol in (TCP, UDP)))
    laboratory.denials()
    yield laboratory, a, b, c
    laboratory.tables.set_limits({})


def limit(laboratory: Laboratory, **limits: Limit) -> None:
    laboratory.tables.set_limits({laboratory.members[name].identity: most for name, most in limits.items()})


def reasons(laboratory: Laboratory) -> set[str]:
    return {reason for reason, _ in laboratory.denials()}


def slowed(laboratory: Laboratory) -> set[int]:
    """Identities whose packets a limit of bandwidth dropped since the last time."""
    return {flow.source for flow in laboratory.tables.drain_flows() if flow.reason == "BANDWIDTH"}


def stream(source: Member, target: Member, seconds: float, most: int) -> tuple[int, float]:
    """Bytes that arrived of a TCP stream, and how long it took; it ends after ``most`` bytes."""
    received, begun = 0, time.monotonic()

    def listening() -> socket.socket:
        server = socket.create_server((target.v4, PORT + 1))
        server.settimeout(5)
        return server

    def sender() -> socket.socket:
        client = socket.create_connection((target.v4, PORT + 1), timeout=5)
        client.setblocking(False)
        return client

    with contextlib.closing(run_in(target.namespace.path, listening)) as server:
        out = run_in(source.namespace.path, sender)
        into, _ = server.accept()
        into.setblocking(False)
        with out, into:
            begun = time.monotonic()
            while received < most and time.monotonic() - begun < seconds:
                readable, writable, _ = select.select([into], [out], [], 0.05)
                if writable:
                    with contextlib.suppress(BlockingIOError):
                        out.send(b"x" * 16384)
                if readable:
                    received += len(into.recv(1 << 20))
            return received, time.monotonic() - begun


def allowance(rate: int, seconds: float) -> float:
    """The most that a bucket of this rate lets through, and a twentieth for clocks."""
    return 1.05 * rate * seconds + max(rate / 10, 2 * LARGEST) + LARGEST


@pytest.mark.parametrize(("who", "most"), [("a", Limit(out_bytes=500_000)), ("b", Limit(in_bytes=500_000))])
def test_a_stream_goes_no_faster_than_its_limit(trio, who: str, most: Limit) -> None:
    laboratory, a, b, c = trio
    laboratory.allow(("a", "b", PORT + 1, TCP), ("c", "b", PORT + 1, TCP))
    limit(laboratory, **{who: most})
    received, seconds = stream(a, b, 1.2, 3_000_000)
    assert 0 < received < allowance(500_000, seconds)
    assert slowed(laboratory) == {A}
    if who == "a":
        # Whoever isn't limited sends to the same place what it likes, beside what is left of the one who is.
        unlimited, seconds = stream(c, b, 5, 3_000_000)
        assert unlimited >= 3_000_000
        assert C not in slowed(laboratory)


def test_datagrams_above_the_limit_are_dropped(trio) -> None:
    laboratory, a, b, _ = trio

    def receiver() -> socket.socket:
        opened = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        opened.bind((b.v6, PORT))
        opened.setblocking(False)
        return opened

    def blast() -> float:
        begun = time.monotonic()
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as client:
            for _ in range(1000):
                client.sendto(b"x" * 1200, (b.v6, PORT))
        return time.monotonic() - begun

    limit(laboratory, a=Limit(out_bytes=300_000))
    with run_in(b.namespace.path, receiver) as into:
        seconds = run_in(a.namespace.path, blast)
        received = 0
        with contextlib.suppress(BlockingIOError):
            while True:
                received += len(into.recv(2048))
    assert 0 < received < allowance(300_000, seconds)
    assert "BANDWIDTH" in reasons(laboratory)


def tries(
    member: Member, address: str, number: int, stack: ExitStack, patience: float = 0.5
) -> list[socket.socket]:
    """Of so many connections that begin at once, those that are open after a moment."""

    def begin() -> list[socket.socket]:
        begun = []
        for _ in range(number):
            client = stack.enter_context(socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET))
            client.setblocking(False)
            with contextlib.suppress(BlockingIOError, ConnectionRefusedError):
                client.connect((address, PORT))
            begun.append(client)
        return begun

    begun = run_in(member.namespace.path, begin)
    time.sleep(patience)
    return [client for client in begun if _is_open(client)]


def _is_open(client: socket.socket) -> bool:
    try:
        client.getpeername()
    except OSError:
        return False
    return True


@pytest.mark.parametrize("who", ["a", "b"])
def test_new_connections_above_the_rate_are_refused(trio, who: str) -> None:
    laboratory, a, b, c = trio
    limit(laboratory, **{who: Limit(new_connections=10)})
    with ExitStack() as stack:
        begun = time.monotonic()
        opened = tries(a, b.v4, 40, stack)
        # A second's worth at once, one that begins the bucket, and what the time since then adds.
        assert 0 < len(opened) <= 11 + 10 * (time.monotonic() - begun) + 1
        assert "RATE" in reasons(laboratory)
        if who == "a":
            assert len(tries(c, b.v6, 40, stack, 1.5)) == 40


def test_a_connection_too_many_is_told_so_at_once(trio) -> None:
    laboratory, a, b, c = trio
    limit(laboratory, a=Limit(connections=3))
    with ExitStack() as stack:
        opened = [stack.enter_context(a.connected(b.v4, PORT)) for _ in range(3)]
        for address in (b.v4, b.v6):
            with pytest.raises(ConnectionRefusedError):
                a.connected(address, PORT)
        assert "CONNECTIONS" in reasons(laboratory)
        assert connections(laboratory.tables, A) == 3
        assert opened[0].send(b"x") == 1, "what is open stays open"
        assert c.call(b.v4, PORT) == "b"
        opened[0].close()
        assert comes_true(lambda: connections(laboratory.tables, A) == 2)
        stack.enter_context(a.connected(b.v6, PORT))


def test_a_caller_too_many_gets_no_answer(trio) -> None:
    laboratory, a, b, c = trio
    limit(laboratory, b=Limit(connections=2))
    with ExitStack() as stack:
        for member in (a, c):
            stack.enter_context(member.connected(b.v4, PORT))
        assert comes_true(lambda: connections(laboratory.tables, B) == 2)
        assert a.call(b.v6, PORT) == ""
        assert "CONNECTIONS" in reasons(laboratory)
    assert comes_true(lambda: connections(laboratory.tables, B) == 0)
    assert a.call(b.v4, PORT) == "b"


def connections(tables: Tables, identity: int) -> int:
    used = tables.usage().get(identity)
    return used.connections if used else 0


def comes_true(condition: Callable[[], bool], seconds: float = 10) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.05)
    return condition()


def test_a_limit_outlives_a_change_of_the_policy(trio) -> None:
    laboratory, a, b, _ = trio
    limit(laboratory, a=Limit(connections=1))
    laboratory.allow(("a", "b", PORT, TCP), ("a", "b", 9999, TCP))
    with a.connected(b.v4, PORT), pytest.raises(ConnectionRefusedError):
        a.connected(b.v4, PORT)


def test_a_limit_that_is_taken_back_no_longer_bites(trio) -> None:
    laboratory, a, b, _ = trio
    limit(laboratory, a=Limit(connections=1))
    with a.connected(b.v4, PORT):
        limit(laboratory)
        a.connected(b.v4, PORT).close()


def test_sockets_of_a_process_that_is_killed_count_no_more(trio) -> None:
    laboratory, a, b, _ = trio
    limit(laboratory, a=Limit(connections=100))
    program = (
        "import socket, sys\n"
        f"held = [socket.create_connection(({b.v4!r}, {PORT})) for _ in range(7)]\n"
        "print(len(held), flush=True)\n"
        "sys.stdin.read()\n"
    )
    with subprocess.Popen(
        ["nsenter", f"--net={a.namespace.path}", sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None and process.stdout.readline().strip() == "7"
            assert connections(laboratory.tables, A) == 7
        finally:
            process.send_signal(signal.SIGKILL)
    assert comes_true(lambda: connections(laboratory.tables, A) == 0)


def test_connections_of_an_earlier_life_are_no_debt(trio) -> None:
    """An identity that comes back counts from nothing; what it still had open was in another count."""
    laboratory, a, b, _ = trio
    limit(laboratory, a=Limit(connections=3))
    with ExitStack() as stack:
        for _ in range(2):
            stack.enter_context(a.connected(b.v4, PORT))
        laboratory.tables.remove_identity(A)
        laboratory.allow(("a", "b", PORT, TCP))
        limit(laboratory, a=Limit(connections=2))
        kept = a.connected(b.v4, PORT)
    # Both ends have closed once the other component counts the later one alone.
    assert comes_true(lambda: connections(laboratory.tables, B) == 1)
    assert connections(laboratory.tables, A) == 1
    kept.close()
    assert comes_true(lambda: connections(laboratory.tables, A) == 0)
    a.connected(b.v4, PORT).close()


def test_counts_are_right_across_another_agent_and_another_version(trio) -> None:
    laboratory, a, b, _ = trio
    limit(laboratory, a=Limit(connections=3))
    with ExitStack() as stack:
        opened = [stack.enter_context(a.connected(b.v4, PORT)) for _ in range(2)]
        load(laboratory.config)
        for member in laboratory.members.values():
            attach.attach(laboratory.config, member.namespace.ifindex)
        again = Tables(laboratory.config)
        try:
            again.set_limits({A: Limit(connections=3)})
            assert connections(again, A) == 2
            opened.append(stack.enter_context(a.connected(b.v4, PORT)))
            with pytest.raises(ConnectionRefusedError):
                a.connected(b.v4, PORT)
            for client in opened:
                client.close()
            assert comes_true(lambda: connections(again, A) == 0)
        finally:
            again.close()
