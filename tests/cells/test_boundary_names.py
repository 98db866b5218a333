"""Names of the outside world in the compiler's result: whose they are, what they open, what covers them."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cells.boundary import compile_topology, model
from cells.boundary.model import TCP, UDP, External
from cells.boundary.names import ANY_NAME, grants, matches

API, TIME = External(443, "tcp", host="api.example.com"), External(123, "udp", host="*.example.com")
SHOP, NETWORK = External(80, "http", host="shop.acme.localhost"), External(443, "tcp", cidr="203.0.113.0/24")


def topology(*externals: External, audit: bool = False) -> model.Topology:
    """A declares, B of the same cell doesn't, C is another tenant's."""
    connections = tuple(
        model.Connection(1000 + n, f"X{n}", external=e, listener_port=20000) for n, e in enumerate(externals)
    )
    a = model.Workload(300, "a", "10.65.1.0", "fd63::2:0", connections=connections)
    b, c = replace(a, identity=301, name="b", connections=()), replace(a, identity=302, connections=())
    cell = model.Cell(
        1, 1, "t1", "shop", "production", 900, 90001, "10.64.2.1", "fd63::1:1", audit=audit, workloads=(a, b)
    )
    other = replace(cell, number=2, tenant=2, rule=901, gateway_identity=90002, audit=False, workloads=(c,))
    return model.Topology(cells=(cell, other), north4="10.64.0.2", north6="fd63::2", door4="10.65.0.2")


def test_a_declared_name_is_its_consumers_with_port_protocol_and_rule() -> None:
    boundary = compile_topology(topology(API, TIME, SHOP, NETWORK))
    assert boundary.external_names == {
        300: [("api.example.com", 443, TCP, 1000), ("*.example.com", 123, UDP, 1001)]
    }
    # A public host of the platform goes through its door; a network is none of the resolver's business.
    assert [door.hosts for door in boundary.doors] == [("shop.acme.localhost",)]
    assert [entry[0] for entry in boundary.identities[300].external] == ["203.0.113.0/24"]


def test_a_name_opens_no_door_and_no_network_by_itself() -> None:
    boundary = compile_topology(topology(API, TIME))
    bare = compile_topology(topology())
    assert replace(boundary, external_names={}) == bare


def test_in_audit_every_name_counts_for_the_record() -> None:
    boundary = compile_topology(topology(API, audit=True))
    assert boundary.external_names == {300: [("api.example.com", 443, TCP, 1000), ANY_NAME], 301: [ANY_NAME]}
    assert grants(boundary.external_names[301], "api.example.com") == {}, "but it opens nothing"


@pytest.mark.parametrize(
    ("pattern", "name", "covers"),
    [
        ("api.example.com", "api.example.com", True),
        ("api.example.com", "a.api.example.com", False),
        ("api.example.com", "example.com", False),
        ("*.example.com", "api.example.com", True),
        ("*.example.com", "example.com", False),
        ("*.example.com", ".example.com", False),
        ("*.example.com", "a.b.example.com", False),
        ("*.example.com", "api.notexample.com", False),
        ("*.example.com", "api.example.com.evil.test", False),
        ("*", "whatever.test", True),
    ],
)
def test_a_wildcard_covers_one_label(pattern: str, name: str, covers: bool) -> None:
    assert matches(pattern, name) is covers


_label = st.sampled_from(["a", "b", "example", "com", "x-y"])
_name = st.lists(_label, min_size=1, max_size=5).map(".".join)


@given(_name, _name)
def test_what_a_wildcard_covers_has_one_label_more(domain: str, name: str) -> None:
    covered = matches(f"*.{domain}", name)
    assert covered == (name.split(".")[1:] == domain.split("."))


def test_of_two_declarations_of_one_name_the_older_rule_counts() -> None:
    entries = [
        ("*.a.test", 443, TCP, 1009),
        ("x.a.test", 443, TCP, 1003),
        ("x.a.test", 80, TCP, 1005),
        ANY_NAME,
    ]
    assert grants(entries, "x.a.test") == {(443, TCP): 1003, (80, TCP): 1005}
    assert grants(entries, "y.a.test") == {(443, TCP): 1009}
    assert grants(entries, "a.test") == {}
