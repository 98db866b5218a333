"""What no tenant opens, whatever it declares."""

from __future__ import annotations

import ipaddress
from pathlib import Path

import pytest

from cells.boundary.edges import floor_reason
from dataplane.planes import topology
from infra.config import Config

CLOSED = [
    "10.1.2.3/32", "172.16.0.1/32", "192.168.178.1/32", "100.64.0.1/32", "100.100.100.200/32",
    "169.254.169.254/32", "168.63.129.16/32", "192.0.0.192/32", "fd00::1/128", "fd00:ec2::254/128",
    "fe80::1/128", "127.0.0.1/32", "224.0.0.1/32", "64:ff9b::a00:1/128", "64:ff9b:1::a00:1/128", "2002:a00:1::1/128",
]  # fmt: skip
OPEN = ["198.51.100.7/32", "1.1.1.1/32", "2001:db8::1/128", "172.32.0.1/32", "11.0.0.0/8"]


def floor(opened: str = "") -> tuple[tuple[str, str], ...]:
    return topology.FLOOR + topology.floor_of_private(Config(home=Path("/nowhere"), open_networks=opened))


@pytest.mark.parametrize("network", CLOSED)
def test_private_networks_and_metadata_services_are_floor(network: str) -> None:
    assert floor_reason(floor(), network)


@pytest.mark.parametrize("network", OPEN)
def test_the_internet_is_not(network: str) -> None:
    assert not floor_reason(floor(), network)


def test_an_operator_opens_a_part_of_a_private_network_and_nothing_beside_it() -> None:
    found = floor("10.20.0.0/16, fd00:1::/32")
    for network in ("10.20.0.1/32", "10.20.255.255/32", "fd00:1::5/128"):
        assert not floor_reason(found, network)
    for network in ("10.19.255.255/32", "10.21.0.0/32", "fd00:2::5/128", "192.168.0.1/32"):
        assert floor_reason(found, network)


def test_metadata_services_stay_closed_in_networks_that_are_opened() -> None:
    found = floor("0.0.0.0/0,::/0")
    for network in ("169.254.169.254/32", "100.100.100.200/32", "fd00:ec2::254/128"):
        assert floor_reason(found, network)


def test_what_is_not_opened_is_whole() -> None:
    parts = [ipaddress.ip_network(text) for text, _ in floor("10.20.0.0/16")]
    ten = ipaddress.IPv4Network("10.0.0.0/8")
    inside = [part for part in parts if isinstance(part, ipaddress.IPv4Network) and part.subnet_of(ten)]
    assert sum(part.num_addresses for part in inside) == 2**24 - 2**16
