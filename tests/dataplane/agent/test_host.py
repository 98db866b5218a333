"""What the node needs beside its network, and what it does to packets on their way."""

from __future__ import annotations

import ipaddress
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from bpf.tables import ALLOW, INGRESS, External, Policy
from dataplane import addresses
from dataplane.agent import host
from dataplane.agent.namespaces import run_in
from infra.config import Config
from tests.bpf.laboratory import TCP, UDP, Laboratory
from tests.links import await_up

pytestmark = pytest.mark.root
_INSTANCES = Path("/proc/sys/fs/inotify/max_user_instances")
#: Of the documentation's networks.
NEAR, FAR = "203.0.113.1", "203.0.113.20"
PUBLIC_PORT = 20190


@pytest.fixture
def outside(laboratory: Laboratory) -> Iterator[Path]:
    """A namespace beyond the platform, which knows the node alone."""
    name, link = f"{laboratory.config.name}-beyond", f"{laboratory.config.name}be0"
    commands = [
        f"ip netns add {name}",
        f"ip link add {link} type veth peer name eth0 netns {name}",
        f"ip address add {NEAR}/24 dev {link}",
        f"ip link set {link} up",
        f"ip -n {name} address add {FAR}/24 dev eth0",
        f"ip -n {name} link set eth0 up",
    ]
    try:
        for command in commands:
            subprocess.run(command.split(), check=True)
        await_up(link)
        await_up("eth0", name)
        yield Path("/run/netns") / name
    finally:
        subprocess.run(["ip", "link", "delete", link], check=False, capture_output=True)
        subprocess.run(["ip", "netns", "delete", name], check=False, capture_output=True)


def tracked() -> set[str]:
    """Addresses that the node's connection tracking knows."""
    text = Path("/proc/net/nf_conntrack").read_text()
    words = (word.partition("=") for line in text.splitlines() for word in line.split())
    return {str(ipaddress.ip_address(value)) for key, _, value in words if key in ("src", "dst")}


def test_the_gateway_may_watch_a_file_for_each_of_thousands_of_clusters(kernel: Config) -> None:
    assert int(_INSTANCES.read_text()) >= 10_000


def test_between_workloads_nothing_is_tracked(laboratory: Laboratory) -> None:
    # Addresses that no other test has: what was tracked once is known for days.
    a, b = laboratory.workload("a", 300, 2040), laboratory.workload("b", 301, 2041)
    for protocol in (TCP, UDP):
        b.listen(protocol, 8080)
    laboratory.allow(("a", "b", 8080, TCP), ("a", "b", 8080, UDP))
    for address in (b.v4, b.v6):
        for protocol in (TCP, UDP):
            assert a.call(address, 8080, protocol, 2) == "b"
    assert not {a.v4, a.v6, b.v4, b.v6} & tracked()


def test_what_leaves_the_platform_gets_the_nodes_address_and_finds_back(
    laboratory: Laboratory, outside: Path
) -> None:
    a = laboratory.workload("a", 300, 2042)
    laboratory.tables.apply_identity(300, 1, [], [External(f"{FAR}/32", 7000, UDP, ALLOW, 1)])

    def listen() -> socket.socket:
        made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        made.bind((FAR, 7000))
        made.settimeout(2)
        return made

    def ask() -> socket.socket:
        made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        made.settimeout(2)
        made.sendto(b"question", (FAR, 7000))
        return made

    with run_in(outside, listen) as server, run_in(a.namespace.path, ask) as client:
        _, peer = server.recvfrom(64)
        assert peer[0] == NEAR
        server.sendto(b"answer", peer)
        assert client.recv(64) == b"answer"
    assert a.v4 in tracked()


def test_the_public_port_leads_to_the_gateway_which_sees_the_client(
    laboratory: Laboratory, outside: Path
) -> None:
    config = replace(laboratory.config, apps_port=PUBLIC_PORT)
    subprocess.run(["nft", "-f", "-"], input=host.rules(config), text=True, check=True)
    gateway = laboratory.workload("gateway", 303, addresses.GATEWAY_NORTH)
    laboratory.tables.apply_identity(
        303, 1, [Policy(addresses.IDENTITY_WORLD, addresses.NORTH_HTTP_PORT, TCP, INGRESS, ALLOW, 1)]
    )

    def listen() -> socket.socket:
        return socket.create_server((gateway.v4, addresses.NORTH_HTTP_PORT))

    def call() -> socket.socket:
        return socket.create_connection((NEAR, PUBLIC_PORT), timeout=2)

    try:
        with run_in(gateway.namespace.path, listen) as server, run_in(outside, call) as client:
            connection, peer = server.accept()
            assert peer[0] == FAR
            connection.sendall(b"hello")
            assert client.recv(64) == b"hello"
            connection.close()
        # Nobody outside names the gateway's own address.
        subprocess.run(
            ["ip", "-n", outside.name, "route", "add", str(config.workloads4), "via", NEAR], check=True
        )
        with pytest.raises(OSError, match="timed out"):
            run_in(
                outside,
                lambda: socket.create_connection((gateway.v4, addresses.NORTH_HTTP_PORT), timeout=0.5),
            )
    finally:
        host.ensure_host(laboratory.config)


def test_rules_are_replaced_as_a_whole(kernel: Config) -> None:
    def listed() -> str:
        table = ["nft", "list", "table", "inet", f"cytoplane_{kernel.net}"]
        return subprocess.run(table, capture_output=True, text=True, check=True).stdout

    before = listed()
    host.ensure_host(replace(kernel, apps_port=PUBLIC_PORT))
    assert str(PUBLIC_PORT) in listed()
    host.ensure_host(kernel)
    assert listed() == before
