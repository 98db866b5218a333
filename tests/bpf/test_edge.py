"""The node's edge: verdicts on built packets, and on a wire of the test's own."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bpf import edge, links
from bpf import sys as bpf
from dataplane.agent.namespaces import run_in
from infra.config import Config
from tests.bpf import packets as p
from tests.bpf.conftest import NET
from tests.links import await_up

pytestmark = pytest.mark.root
DROP, PASS = 1, 2
TCP, UDP = 6, 17
PORT = 22080
#: The name of the wire: our side, and the namespace at its other end.
OURS, THEIRS = f"cy{NET}edge", f"cy{NET}-edge"


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Config]:
    made = Config(home=tmp_path_factory.mktemp("edge"), net=NET)
    edge.remove(made)
    environment = {**os.environ, "CYTOPLANE_HOME": str(made.home), "CYTOPLANE_NET": str(made.net)}
    done = subprocess.run(
        [sys.executable, "-m", "bpf.edge", "load"],
        env=environment,
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    yield made
    edge.remove(made)


@pytest.fixture
def tables(config: Config) -> Iterator[edge.Tables]:
    opened = edge.Tables(config)
    opened.set_ports([(PORT, TCP), (PORT, UDP)])
    for protocol in (TCP, UDP):
        opened.set_pace(protocol, 0)
    yield opened
    opened.set_denied([])
    opened.forget_sources()
    opened.close()


@pytest.fixture
def run(config: Config) -> Iterator[Callable[[int, bytes], int]]:
    program = bpf.object_get(edge.folder(config) / "programs" / edge.PROGRAM)

    def once(kind: int, payload: bytes) -> int:
        return bpf.test_run(program, p.ethernet(b"\x02" * 6, b"\x04" * 6, kind, payload))[0]

    yield once
    os.close(program)


def v4(source: str, payload: bytes, protocol: int = TCP, **more) -> tuple[int, bytes]:
    return p.ETH_IP, p.ipv4(source, "192.0.2.1", protocol, payload, **more)


def v6(source: str, payload: bytes, following: int = TCP) -> tuple[int, bytes]:
    return p.ETH_IPV6, p.ipv6(source, "2001:db8::1", following, payload)


SYN, DATA, QUERY = p.tcp(4000, PORT), p.tcp(4000, PORT, 0x10), p.udp(4000, PORT)


def test_who_is_denied_does_not_reach_public_ports(tables: edge.Tables, run) -> None:
    tables.set_denied(["198.51.100.0/24", "2001:db8:bad::/48"])
    refused = [
        v4("198.51.100.7", SYN), v4("198.51.100.7", DATA), v4("198.51.100.7", QUERY, UDP),
        v6("2001:db8:bad:1::7", SYN), v6("2001:db8:bad:1::7", QUERY, UDP),
    ]  # fmt: skip
    assert [run(*packet) for packet in refused] == [DROP] * 5
    passed = [
        v4("198.51.101.7", SYN), v6("2001:db8:bae::7", SYN),
        # Not the node's firewall: another port, an answer to somebody here, an echo.
        v4("198.51.100.7", p.tcp(4000, 22)), v4("198.51.100.7", p.tcp(PORT, 40000, 0x12)),
        v4("198.51.100.7", b"\x08" + b"\0" * 15, 1), (p.ETH_ARP, b"\0" * 28), (0x88CC, b"\0" * 30),
    ]  # fmt: skip
    assert [run(*packet) for packet in passed] == [PASS] * 7


def test_where_no_port_can_be_read_only_the_list_decides(tables: edge.Tables, run) -> None:
    tables.set_pace(TCP, 0.001, burst=1)
    options = b"\x01" * 4
    hidden = p.extension(TCP) + SYN
    for packet in (
        lambda last: v4(f"198.51.100.{last}", SYN, options=options),
        lambda last: v4(f"198.51.100.{last}", SYN, fragment=0x2000),
        lambda last: v4(f"198.51.100.{last}", b"x" * 16, fragment=3),
        lambda last: v6(f"2001:db8:bad::{last}", hidden, 0),
        lambda last: v6(f"2001:db8:bad::{last}", hidden, 60),
        lambda last: v6(f"2001:db8:bad::{last}", p.fragment6(TCP, 0, True) + SYN, 44),
    ):
        assert [run(*packet(9)) for _ in range(4)] == [PASS] * 4
        tables.set_denied(["198.51.100.9", "2001:db8:bad::9"])
        assert (run(*packet(9)), run(*packet(8))) == (DROP, PASS)
        tables.set_denied([])


def test_what_is_cut_off_is_left_to_the_stack(tables: edge.Tables, run) -> None:
    tables.set_denied(["0.0.0.0/0", "::/0"])
    for kind, payload in (v4("198.51.100.7", SYN), v6("2001:db8:bad::7", SYN)):
        header = 20 if kind == p.ETH_IP else 40
        for length in (1, header - 1, header, header + 19):
            assert run(kind, payload[:length]) == PASS


def test_a_source_opens_so_many_and_no_more(tables: edge.Tables, run) -> None:
    tables.set_pace(TCP, 0.001, burst=5)
    verdicts = [run(*v4("198.51.100.20", SYN)) for _ in range(8)]
    assert verdicts == [PASS] * 5 + [DROP] * 3
    # What is open already goes on; others have a pace of their own; datagrams too.
    assert run(*v4("198.51.100.20", DATA)) == PASS
    assert run(*v4("198.51.100.21", SYN)) == PASS
    assert run(*v4("198.51.100.20", QUERY, UDP)) == PASS
    assert run(*v4("198.51.100.20", p.tcp(4000, 443))) == PASS


def test_the_addresses_of_one_ipv6_network_are_one_source(tables: edge.Tables, run) -> None:
    tables.set_pace(TCP, 0.001, burst=3)
    assert [run(*v6(f"2001:db8:1:2::{n}", SYN)) for n in range(1, 6)] == [PASS] * 3 + [DROP] * 2
    assert run(*v6("2001:db8:1:3::1", SYN)) == PASS


def test_datagrams_are_paced_by_packet(tables: edge.Tables, run) -> None:
    tables.set_pace(UDP, 0.001, burst=4)
    assert [run(*v4("198.51.100.30", QUERY, UDP)) for _ in range(6)] == [PASS] * 4 + [DROP] * 2


def test_what_was_refused_is_counted_with_its_reason_and_its_sender(tables: edge.Tables, run) -> None:
    before = tables.counters()
    tables.set_denied(["198.51.100.40"])
    tables.set_pace(TCP, 0.001, burst=1)
    for _ in range(3):
        run(*v4("198.51.100.40", SYN))
        run(*v6("2001:db8:7::1", SYN))
    after = tables.counters()
    assert (after["denied"] - before["denied"], after["limited"] - before["limited"]) == (3, 2)
    found = {(o.address, o.reason): o.packets for o in tables.offenders(1000)}
    assert found[("198.51.100.40", "EDGE_DENIED")] == 3
    assert found[("2001:db8:7::1", "EDGE_RATE")] == 2
    assert len(tables.offenders(1)) == 1


def test_the_list_is_exactly_what_was_set(tables: edge.Tables) -> None:
    tables.set_denied(["198.51.100.0/24", "2001:db8::/32"])
    tables.set_denied(["198.51.100.0/25", "2001:db8::/32"])
    assert tables.denied() == ["198.51.100.0/25", "2001:db8::/32"]


@pytest.fixture
def wire() -> Iterator[Path]:
    """A veth between the host and a namespace: addresses .1/::1 here, .2, .3/::2 there."""

    def remove() -> None:
        subprocess.run(["ip", "link", "delete", OURS], capture_output=True, check=False)
        subprocess.run(["ip", "netns", "delete", THEIRS], capture_output=True, check=False)

    remove()
    for command in (
        f"ip netns add {THEIRS}",
        f"ip link add {OURS} type veth peer name eth0 netns {THEIRS}",
        f"ip address add 198.51.100.1/24 dev {OURS}",
        f"ip address add 2001:db8:e::1/64 dev {OURS} nodad",
        f"ip link set {OURS} up",
        f"ip -n {THEIRS} address add 198.51.100.2/24 dev eth0",
        f"ip -n {THEIRS} address add 198.51.100.3/24 dev eth0",
        f"ip -n {THEIRS} address add 2001:db8:e::2/64 dev eth0 nodad",
        f"ip -n {THEIRS} link set eth0 up",
    ):
        subprocess.run(command.split(), check=True, capture_output=True)
    await_up(OURS)
    await_up("eth0", THEIRS)
    yield Path("/run/netns") / THEIRS
    remove()


@pytest.fixture
def server(wire: Path) -> Iterator[None]:
    opened = []
    for family, address in ((socket.AF_INET, "198.51.100.1"), (socket.AF_INET6, "2001:db8:e::1")):
        listening = socket.socket(family)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((address, PORT))
        listening.listen(64)
        opened.append(listening)
    yield
    for listening in opened:
        listening.close()


def reaches(wire: Path, address: str, source: str = "", patience: float = 4) -> bool:
    def attempt() -> bool:
        with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as client:
            client.settimeout(patience)
            try:
                client.bind((source, 0))
                client.connect((address, PORT))
            except TimeoutError:
                return False
            return True

    return run_in(wire, attempt)


def kept_out(wire: Path, address: str, source: str = "") -> bool:
    """Not one try was answered: the next would come a second after the first."""
    return not reaches(wire, address, source, 0.8)


def test_a_guarded_interface_keeps_out_who_is_denied(
    config: Config, tables: edge.Tables, wire: Path, server: None
) -> None:
    assert edge.attach(config, OURS) in ("native", "generic")
    try:
        assert reaches(wire, "198.51.100.1") and reaches(wire, "2001:db8:e::1")
        tables.set_denied(["198.51.100.2", "2001:db8:e::/64"])
        assert kept_out(wire, "198.51.100.1", "198.51.100.2")
        assert kept_out(wire, "2001:db8:e::1")
        assert reaches(wire, "198.51.100.1", "198.51.100.3")
    finally:
        edge.detach(config)
    assert reaches(wire, "198.51.100.1", "198.51.100.2")


def test_a_flood_of_connections_leaves_others_theirs(
    config: Config, tables: edge.Tables, wire: Path, server: None
) -> None:
    tables.set_pace(TCP, 0.001, burst=4)
    edge.attach(config, OURS)
    try:
        assert all(reaches(wire, "198.51.100.1", "198.51.100.2") for _ in range(4))
        assert kept_out(wire, "198.51.100.1", "198.51.100.2")
        assert reaches(wire, "198.51.100.1", "198.51.100.3")
    finally:
        edge.detach(config)


def test_attaching_again_is_one_and_the_same(config: Config, tables: edge.Tables, wire: Path) -> None:
    assert edge.attach(config, OURS) != ""
    try:
        index = int(Path(f"/sys/class/net/{OURS}/ifindex").read_text())
        assert edge.attach(config, OURS) == ""
        assert edge.attached(config) == index
    finally:
        assert edge.detach(config) is True
    assert (edge.attached(config), edge.detach(config)) == (0, False)


def test_somebody_elses_program_stays(config: Config, tables: edge.Tables, wire: Path) -> None:
    program = bpf.object_get(edge.folder(config) / "programs" / edge.PROGRAM)
    index = int(Path(f"/sys/class/net/{OURS}/ifindex").read_text())
    theirs, _ = links.attach_xdp(program, index)
    try:
        with pytest.raises(edge.EdgeError, match="another XDP program"):
            edge.attach(config, OURS)
        assert links.interface(theirs)[0] == index
        assert edge.attached(config) == 0
    finally:
        os.close(theirs)
        os.close(program)


def test_interfaces_that_face_no_network_are_refused(config: Config, tables: edge.Tables) -> None:
    for name in ("lo", f"cy{NET}v1024", "nosuch0", "../lo", ""):
        with pytest.raises(edge.EdgeError):
            edge.attach(config, name)


def test_an_interface_that_went_away_is_no_obstacle(config: Config, tables: edge.Tables, wire: Path) -> None:
    edge.attach(config, OURS)
    subprocess.run(["ip", "link", "delete", OURS], check=True)
    assert edge.attached(config) == 0
    subprocess.run(
        f"ip link add {OURS} type veth peer name eth0 netns {THEIRS}".split(), check=True, capture_output=True
    )
    try:
        assert edge.attach(config, OURS) != ""
    finally:
        edge.detach(config)


def test_a_list_that_does_not_fit_is_an_error(tables: edge.Tables) -> None:

    with pytest.raises(OSError) as refused:
        tables.set_denied(f"10.{n >> 8}.{n & 255}.0/24" for n in range(16385))
    assert refused.value.errno in (errno.ENOSPC, errno.E2BIG)
