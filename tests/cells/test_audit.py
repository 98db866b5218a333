"""What audit lets pass and what it never does, read from the tables as the kernel reads them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cells.boundary import compile_topology, explain, model
from cells.boundary.model import AUDIT, DENY, TCP, UDP, Connection, Endpoint, External, Topology
from tests.cells.kernel import NO, REPORTED, YES, Kernel
from tests.cells.test_explain import cell, component

WEB = component(
    1,
    "web",
    Endpoint(1001, "http", 8080, "http"),
    connections=(Connection(1010, "NET", external=External(443, "tcp", cidr="203.0.113.0/24")),),
)
API = component(
    2, "api", Endpoint(1002, "raw", 9001, "tcp"), Endpoint(1003, "named", 9002, "http", callers=True)
)
VAULT = component(
    3,
    "vault",
    Endpoint(1004, "shown", 9001, "tcp", "tenant"),
    Endpoint(1005, "http", 9002, "http", "public"),
    Endpoint(1006, "own", 9003, "tcp", "cell"),
    Endpoint(1007, "named", 9004, "http", "tenant", callers=True),
    Endpoint(1008, "dns", 9005, "udp", "tenant"),
)
STAGED = component(4, "api", Endpoint(1009, "raw", 9001, "tcp", "tenant"))
FOREIGN = component(5, "desk", Endpoint(1011, "raw", 9001, "tcp", "tenant"))
FLOOR = tuple((text, "FLOOR") for text in ("169.254.0.0/16", "10.64.0.0/15", "192.168.0.0/16", "fd63::/16"))


def topology(**audited: bool) -> Topology:
    """shop and its neighbours; the names of cells that are in audit."""
    return Topology(
        cells=(
            cell(1, 1, "shop", "production", WEB, API, strict=True, audit=audited.get("shop", False)),
            cell(2, 1, "vault", "production", VAULT, audit=audited.get("vault", False)),
            cell(3, 1, "shop", "staging", STAGED, audit=audited.get("staging", False)),
            cell(4, 2, "desk", "production", FOREIGN, audit=audited.get("desk", False)),
        ),
        north4="10.64.0.2", north6="fd63::1:2", resolver4="10.64.0.3", resolver6="fd63::1:3",
        door4="10.65.0.2", door6="fd63::2:2", index4="10.64.0.4", index6="fd63::1:4",
        public_ports=(80, 8080), apps_domain="apps.test", floor=FLOOR,
    )  # fmt: skip


#: Whom shop's web calls, at which port, by which protocol: without audit, and with it.
TABLE = [
    # The same cell: every port, but for what only a gateway may call.
    ("api", 9001, TCP, NO, REPORTED),
    ("api", 9999, TCP, NO, REPORTED),
    ("api", 9001, UDP, NO, REPORTED),
    ("api", 9002, TCP, NO, NO),
    ("api", 9002, UDP, NO, REPORTED),
    ("web", 1, TCP, YES, YES),
    # Another cell of the tenant: what it shows.
    ("vault", 9001, TCP, NO, REPORTED),
    ("vault", 9002, TCP, NO, REPORTED),
    ("vault", 9005, UDP, NO, REPORTED),
    ("vault", 9003, TCP, NO, NO),
    ("vault", 9004, TCP, NO, NO),
    ("vault", 9001, UDP, NO, NO),
    ("vault", 9999, TCP, NO, NO),
    # Another environment, another tenant: nothing.
    ("staged", 9001, TCP, NO, NO),
    ("staged", 9999, UDP, NO, NO),
    ("desk", 9001, TCP, NO, NO),
    ("desk", 9999, UDP, NO, NO),
    # Outside: everything but the floor.
    ("198.51.100.7", 443, TCP, NO, REPORTED),
    ("198.51.100.7", 53, UDP, NO, REPORTED),
    ("2001:db8::7", 443, TCP, NO, REPORTED),
    ("203.0.113.9", 443, TCP, YES, YES),
    ("203.0.113.9", 80, TCP, NO, REPORTED),
    ("198.51.100.7", 0, model.ICMP, NO, NO),
    ("2001:db8::7", 0, model.ICMPV6, NO, NO),
    ("169.254.169.254", 80, TCP, NO, NO),
    ("192.168.1.1", 443, TCP, NO, NO),
    ("10.64.9.77", 9001, TCP, NO, NO),
    ("fd63::9:77", 9001, TCP, NO, NO),
    # The platform's own parts: what was open stays open, and nothing else.
    ("10.64.0.3", 53, UDP, YES, YES),
    ("10.64.0.3", 80, TCP, NO, NO),
    ("10.64.0.2", 8080, TCP, NO, NO),
    ("10.64.0.4", 3141, TCP, NO, NO),
    ("10.64.255.1", 20000, TCP, NO, NO),
    ("10.64.255.2", 9002, TCP, NO, NO),
    ("10.65.0.2", 80, TCP, NO, NO),
]
WHO = {"web": WEB, "api": API, "vault": VAULT, "staged": STAGED, "desk": FOREIGN}


def ask(known: Topology, target: str, port: int, protocol: int) -> str:
    workload = WHO.get(target)
    address = workload.replicas[0].v4 if workload else target
    own = WEB.replicas[0].v6 if ":" in address else WEB.replicas[0].v4
    return Kernel(compile_topology(known)).sends(WEB.identity, own, address, port, protocol)


@pytest.mark.parametrize(("target", "port", "protocol", "without", "audited"), TABLE)
def test_the_truth_table_of_audit(target: str, port: int, protocol: int, without: str, audited: str) -> None:
    assert ask(topology(), target, port, protocol) == without
    assert ask(topology(shop=True), target, port, protocol) == audited
    # Whether the others are in audit changes nothing for who calls.
    others = {"vault": True, "staging": True, "desk": True}
    assert ask(topology(**others), target, port, protocol) == without
    assert ask(topology(shop=True, **others), target, port, protocol) == audited


@pytest.mark.parametrize("strict", [True, False])
def test_audit_never_names_anybody_who_isnt_the_projects_to_call(strict: bool) -> None:
    known = topology(shop=True, vault=True, staging=True, desk=True)
    known = replace(known, cells=tuple(replace(c, strict=strict) for c in known.cells))
    boundary = compile_topology(known)
    everyone = known.by_identity()
    for identity, policy in boundary.identities.items():
        for remote, port, protocol, _, verdict, _ in policy.policy:
            if verdict != AUDIT:
                continue
            # Platform parts, gateways, the node, the world and wildcards aren't workloads.
            one, other = everyone[identity][0], everyone[remote][0]
            assert (one.tenant, one.environment) == (other.tenant, other.environment)
            assert protocol in (TCP, UDP)
            assert port or one.number == other.number
        if any(entry[3] == AUDIT for entry in policy.external):
            assert identity in everyone
        assert not [entry for entry in policy.external if entry[3] == DENY]


def test_a_provider_that_isnt_in_audit_hears_only_the_consumers_that_are() -> None:
    boundary = compile_topology(topology(shop=True))
    heard = {e[:3] for e in boundary.identities[VAULT.identity].policy if e[4] == AUDIT}
    shown = ((9001, TCP), (9002, TCP), (9005, UDP))
    assert heard == {(w.identity, port, protocol) for w in (WEB, API) for port, protocol in shown}
    # And whoever isn't in audit itself gets nothing by its provider being in it.
    assert not [
        e for e in compile_topology(topology(vault=True)).identities[WEB.identity].policy if e[4] == AUDIT
    ]


def test_names_lead_where_audit_lets_pass_and_nowhere_else() -> None:
    quiet, loud = compile_topology(topology()), compile_topology(topology(shop=True))
    assert set(quiet.names[WEB.identity]) == {"web", "web.shop"}
    assert set(loud.names[WEB.identity]) == {"web", "web.shop", "api", "api.shop", "vault.vault"}
    assert loud.names[WEB.identity]["api"] == (API.service4, API.service6)
    assert [entry[0] for entry in loud.external_names[WEB.identity]] == ["*"]
    assert WEB.identity not in quiet.external_names


def test_what_audit_lets_pass_is_explained_with_the_declaration_that_is_missing() -> None:
    known = topology(shop=True)
    shop = known.cells[0]
    for target, port, fix in (
        ("api", 9001, "to: api.raw"),
        ("vault/vault", 9001, "to: vault/vault.shown"),
        ("198.51.100.7", 443, "cidr: 198.51.100.7/32"),
        ("api.example.com", 443, "host: api.example.com"),
    ):
        answer = explain(known, "web", target, port, reader=shop)
        assert (answer.allowed, answer.audited, answer.verdict) == (False, True, "audited")
        assert fix in answer.fix
        assert "in audit" in answer.sentence
    for target, port in (("vault/vault", 9003), ("api@staging", 9001), ("169.254.169.254", 80)):
        assert explain(known, "web", target, port, reader=shop).verdict == "denied"
