"""Whatever happens to the agent, no forbidden packet passes and no allowed connection is cut."""

from __future__ import annotations

import errno
import json
import signal
import socket
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from bpf import loader
from dataplane.agent import filters, network, sockets, upgrade
from dataplane.agent.namespaces import run_in
from tests.dataplane.agent.agents import (
    OTHER,
    PORT,
    TCP,
    UDP,
    Machine,
    Traffic,
    echoed,
    machine,
    other_version,
    until,
)

pytestmark = pytest.mark.root
STREAM, DATAGRAM = socket.SOCK_STREAM, socket.SOCK_DGRAM
#: What may be in every test here; nothing else may.
ALLOWED = [("alice", "bob", PORT, TCP), ("alice", "bob", PORT, UDP)]
MORE = [("alice", "bob", OTHER, TCP), ("alice", "bob", OTHER, UDP)]


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    home = tmp_path_factory.mktemp("node")
    with machine(home) as made:
        made.start()
        made.apply(*ALLOWED)
        made.await_replicas()
        for name in ("alice", "bob", "carol"):
            made.serve(name, PORT, OTHER)
        yield made


@pytest.fixture
def calm(node: Machine) -> Iterator[Machine]:
    """An agent is there, its desired state is in force, and so it is afterwards."""
    if node.agent is None:
        node.start()
    node.apply(*ALLOWED)
    bob = node.pair("bob").v4
    until(lambda: not node.reaches("alice", bob, OTHER), "another state is in force")
    for address in node.service:
        until(partial(node.reaches, "alice", address, PORT), f"no service: {node._said()}")
    yield node
    node.kill()


def opened(node: Machine, port: int = PORT) -> list[socket.socket]:
    """Connections of every kind: by service address, by address, over both families."""
    return [
        node.open("alice", address, port, kind)
        for pair in (node.service, node.pair("bob"))
        for address in pair
        for kind in (STREAM, DATAGRAM)
    ]


def provided(node: Machine, port: int) -> list[sockets.Socket]:
    """Connections that Bob's namespace has at a port."""
    return [s for s in sockets.listing(node.path("bob"), (TCP,)) if s.local_port == port]


def forbidden(node: Machine) -> list[tuple[str, str, int, int]]:
    """Ways that nobody opened: from a stranger, to another port, in the other direction."""
    alice, bob = node.pair("alice"), node.pair("bob")
    return [
        ("carol", bob.v4, PORT, DATAGRAM),
        ("carol", bob.v6, PORT, DATAGRAM),
        ("carol", bob.v4, PORT, STREAM),
        ("bob", alice.v4, PORT, DATAGRAM),
        ("bob", alice.v6, PORT, STREAM),
        ("alice", node.pair("carol").v4, PORT, DATAGRAM),
    ]


def undisturbed(node: Machine, disturbance: Callable[[], None], *, memory_lost: bool = False) -> None:
    """Nothing passes that mustn't, nothing stops that may go on, while it happens.

    ``memory_lost``: what is remembered of flows goes, and with it the one answer to each datagram socket that is
    underway at that moment.
    """
    connections = opened(node)
    with Traffic(node, connections, forbidden(node)) as traffic:
        until(lambda: traffic.asked > 16, "no traffic")
        disturbance()
        before = traffic.asked
        until(lambda: traffic.asked > before + 16, "traffic has stopped")
    assert traffic.passed == []
    silent = [made for made, _ in traffic.silences]
    if memory_lost:
        assert len(silent) == len(set(silent)) and {made.type for made in silent} <= {DATAGRAM}
    else:
        assert silent == []
    assert all(echoed(each) for each in connections)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_an_agent_that_ends_and_comes_back(calm: Machine, how: signal.Signals) -> None:
    def disturbance() -> None:
        assert calm.agent is not None
        calm.agent.process.send_signal(how)
        calm.agent.process.wait(10)
        calm.kill()
        time.sleep(0.3)
        bob = calm.pair("bob")
        assert calm.reaches("alice", bob.v4, PORT) and calm.reaches("alice", calm.service.v6, PORT, DATAGRAM)
        assert not calm.reaches("alice", bob.v4, OTHER)
        calm.start()

    undisturbed(calm, disturbance)


def damage(text: bytes, how: str) -> bytes | None:
    return {
        "garbage": b"\x00\xff" * 100,
        "truncated": text[: len(text) // 2],
        "empty": b"",
        "another": json.dumps({"sha256": "x", "snapshot": "{}"}).encode(),
        "missing": None,
    }[how]


@pytest.mark.parametrize("how", ["garbage", "truncated", "empty", "another", "missing"])
def test_a_damaged_state_changes_nothing_that_runs(calm: Machine, how: str) -> None:
    file = calm.config.agent_dir / "state.json"

    def disturbance() -> None:
        calm.kill()
        content = damage(file.read_bytes(), how)
        file.unlink()
        if content is not None:
            file.write_bytes(content)
        agent = calm.start()
        found = agent.health()
        assert how == "missing" or any("damaged" in problem for problem in found["problems"])
        assert not found["healthy"]  # podman isn't there either
        time.sleep(0.3)

    undisturbed(calm, disturbance)
    calm.apply(*ALLOWED, *MORE)
    until(lambda: calm.reaches("alice", calm.pair("bob").v4, OTHER), "the new state isn't taken up")


def test_killed_in_the_middle_of_applying_again_and_again(calm: Machine) -> None:
    """Two states that have some edges in common: those always hold, others never do."""

    def disturbance() -> None:
        for number in range(8):
            if calm.agent is None:
                calm.start(wait=False)
                time.sleep(0.15 * number)  # in the middle of starting, too
                if number % 2:
                    calm.ready()
            if number % 2:
                calm.apply(*ALLOWED, *(MORE if number % 4 == 1 else []))
                time.sleep(0.004 * number)
            calm.kill()
        calm.start()

    undisturbed(calm, disturbance)
    calm.apply(*ALLOWED)
    bob = calm.pair("bob")
    until(lambda: not calm.reaches("alice", bob.v4, OTHER), "an entry of another state is left")
    assert calm.reaches("alice", bob.v6, PORT)


def test_what_a_change_concerns_ends_within_a_second_and_the_rest_goes_on(calm: Machine) -> None:
    calm.apply(*ALLOWED, *MORE)
    until(lambda: calm.reaches("alice", calm.pair("bob").v4, OTHER), "not in force")
    kept, cut = opened(calm), opened(calm, OTHER)
    with Traffic(calm, kept, forbidden(calm)) as traffic:
        until(lambda: traffic.asked > 16, "no traffic")
        calm.apply(*ALLOWED)
        begun = time.monotonic()
        for each in cut:
            each.settimeout(3)
            with pytest.raises(OSError) as ended:
                while each.recv(64):
                    pass
            assert ended.value.errno in (errno.ECONNABORTED, errno.ECONNRESET)
        assert time.monotonic() - begun < 1.0
        # The other end is told as well.
        until(lambda: not provided(calm, OTHER), "the provider's side still waits", 1.0)
    assert traffic.passed == [] and traffic.silences == []


def test_an_agent_that_was_away_ends_what_was_forbidden_meanwhile(calm: Machine) -> None:
    calm.apply(*ALLOWED, *MORE)
    until(lambda: calm.reaches("alice", calm.pair("bob").v4, OTHER), "not in force")
    kept, cut = opened(calm), opened(calm, OTHER)
    calm.kill()
    calm.start()
    calm.apply(*ALLOWED)
    for each in cut:
        each.settimeout(5)
        with pytest.raises(OSError):
            while each.recv(64):
                pass
    assert all(echoed(each) for each in kept)


#: Another size of a table is another layout; its flows are remembered in the same way.
SMALLER = {"bpf/lib/maps.h": ("policy, 1048576", "policy, 524288")}
#: Flows are remembered otherwise, so that nothing can be handed over.
OTHER_FLOWS = {
    "bpf/lib/maps.h": ("conntrack, 16384, 4096)", "conntrack, 16384, 2048)"),
    "bpf/layout.py": ("4096, FLOW_ID", "2048, FLOW_ID"),
}


def _interfaces(node: Machine) -> list[int]:
    return [index for index, name in socket.if_nameindex() if name.startswith(f"{node.config.name}v")]


@pytest.mark.parametrize("changes", [SMALLER, OTHER_FLOWS], ids=["memory handed over", "memory lost"])
def test_an_upgrade_to_another_layout_and_back(
    calm: Machine, tmp_path: Path, changes: dict[str, tuple[str, str]]
) -> None:
    version = other_version(tmp_path / "version", changes)
    own = loader.pins(calm.config)

    def there() -> None:
        calm.kill()
        calm.start(version)
        until(lambda: not own.exists(), f"the new version doesn't take over: {calm._said()}")
        _one_version_everywhere(calm)

    def back() -> None:
        calm.kill()
        calm.start()
        until(lambda: [each.name for each in calm.config.bpffs.iterdir()] == [own.name], calm._said())
        _one_version_everywhere(calm)

    lost = changes is OTHER_FLOWS
    undisturbed(calm, there, memory_lost=lost)
    # That it is being upgraded is said until the watch has looked; what went wrong, for minutes.
    until(lambda: not _about_programs(calm), "the new programs aren't well")
    undisturbed(calm, back, memory_lost=lost)


def _about_programs(node: Machine) -> list[str]:
    assert node.agent is not None
    return [problem for problem in node.agent.health()["problems"] if "program" in problem]


def _one_version_everywhere(node: Machine) -> None:
    found = filters.programs(_interfaces(node))
    for side in ("from_workload", "to_workload"):
        assert len({tuple(sides[side]) for sides in found.values()}) == 1
        assert all(len(sides[side]) == 1 for sides in found.values())


def test_an_upgrade_without_a_state_waits_for_one_under_the_earlier_programs(
    calm: Machine, tmp_path: Path
) -> None:
    version = other_version(tmp_path / "version", SMALLER)
    own = loader.pins(calm.config)
    state = calm.config.agent_dir / "state.json"

    def disturbance() -> None:
        calm.kill()
        state.write_bytes(b"{")
        agent = calm.start(version)
        assert any("being upgraded" in problem for problem in agent.health()["problems"])
        time.sleep(0.5)
        assert own.exists(), "the earlier programs are gone"
        # And again: an agent that dies here leaves it as it is.
        calm.kill()
        calm.start(version)
        assert own.exists()
        calm.apply(*ALLOWED)
        until(lambda: not own.exists(), f"the new version doesn't take over: {calm._said()}")

    undisturbed(calm, disturbance)
    calm.kill()
    calm.start()
    until(lambda: own.exists() and not upgrade.earlier(calm.config), calm._said())


def test_an_upgrade_that_is_killed_at_any_moment_is_finished_by_the_next(
    calm: Machine, tmp_path: Path
) -> None:
    version = other_version(tmp_path / "version", SMALLER)
    own = loader.pins(calm.config)

    def disturbance() -> None:
        calm.kill()
        for number in range(5):
            calm.start(version, wait=False)
            time.sleep(0.6 + 0.3 * number)
            calm.kill()
        calm.start(version)
        until(lambda: not own.exists(), f"the new version doesn't take over: {calm._said()}")

    undisturbed(calm, disturbance)
    calm.kill()
    calm.start()
    until(lambda: own.exists() and not upgrade.earlier(calm.config), calm._said())


def test_a_version_that_the_verifier_refuses_leaves_the_earlier_one_in_force(
    calm: Machine, tmp_path: Path
) -> None:
    refused = {
        **SMALLER,
        "bpf/workload.bpf.c": (
            "\tstruct packet p = {};\n\tstruct view w = {};\n\t__u32 zero = 0, ifindex = skb->ifindex;",
            "\tstruct packet p = {};\n\tstruct view w = {};\n\t__u32 zero = 0, ifindex = skb->ifindex;"
            "\n\tif (*(volatile char *)(long)ifindex) return 0;",
        ),
    }
    version = other_version(tmp_path / "version", refused)

    def disturbance() -> None:
        calm.kill()
        agent = calm.start(version, wait=False)
        agent.process.wait(60)
        assert "the kernel refuses the program" in agent.log.read_text()
        calm.kill()

    undisturbed(calm, disturbance)
    assert loader.status(calm.config)["loaded"]


def test_an_interface_that_nobody_announced_passes_nothing(calm: Machine) -> None:
    """As a workload that starts while the agent is away would have, at best."""
    calm.kill()
    number, bob = 9050, calm.pair("bob")
    own = str(calm.config.workloads4[number]), str(calm.config.workloads6[number])
    namespace = network.create(calm.config, "r9050", number, [own])
    try:
        network.up(namespace, [own])

        def knock() -> list[str]:
            reached = []
            for address in bob:
                for kind in (STREAM, DATAGRAM):
                    family = socket.AF_INET6 if ":" in address else socket.AF_INET
                    with socket.socket(family, kind) as made:
                        made.settimeout(0.4)
                        try:
                            made.connect((address, PORT))
                            made.send(b"knock")
                            made.recv(64)
                            reached.append(address)
                        except OSError:
                            continue
            return reached

        assert run_in(namespace.path, knock) == []
        assert not calm.reaches("alice", own[0], PORT)
    finally:
        network.destroy(calm.config, "r9050", number)
