"""Explanations against the tables that were compiled from the same declarations, and what they tell whom."""

from __future__ import annotations

from pathlib import Path

import pytest

from cells.boundary import compile_topology, explain
from cells.boundary.ends import UnknownEndError
from cells.boundary.explain import explanations
from cells.boundary.model import (
    ICMP,
    TCP,
    UDP,
    Boundary,
    Cell,
    Connection,
    Endpoint,
    Explanation,
    External,
    Replica,
    Topology,
    Workload,
)
from infra.config import Config
from tests.cells.kernel import NO, REPORTED, YES, Kernel
from tests.conformance import direct
from tests.conformance.probes import (
    CONTAINER,
    DOOR,
    EXTERNAL,
    LISTENER,
    PING,
    SERVICE,
    Probe,
    probes_of,
)
from tests.conformance.world import World, generate

WORDS = {TCP: "tcp", UDP: "udp", ICMP: "icmp", 58: "icmp"}


def outcome(answer: Explanation) -> str:
    return YES if answer.allowed else REPORTED if answer.audited else NO


class Asked:
    """A world's tables, and the same world explained."""

    def __init__(self, seed: int) -> None:
        self.config = Config(home=Path("/nonexistent"))
        self.world: World = generate(seed)
        self.topology = direct.topology(self.world, self.config)
        self.boundary: Boundary = compile_topology(self.topology)
        self.kernel = Kernel(self.boundary)
        self.known = self.topology.by_identity()

    def addresses(self, probe: Probe) -> tuple[str, str] | None:
        """The caller's own address and the one that it calls; None for a way that isn't looked at here."""
        family = probe.family

        def replica(index: int) -> str:
            owner = self.known[self.world.owner(index).identity][1]
            found = next(r for r in owner.replicas if r.id == f"r{index}")
            return found.v4 if family == 4 else found.v6

        own = replica(probe.caller)
        if probe.way in (EXTERNAL, PING) and probe.where:
            return own, probe.where
        if probe.way == SERVICE:
            callee = self.known[probe.callee][1]
            return own, callee.service4 if family == 4 else callee.service6
        if probe.way in (CONTAINER, PING):
            return own, replica(probe.copy)
        if probe.way == LISTENER:
            cell = self.known[probe.callee][0]
            return own, cell.gateway4 if family == 4 else cell.gateway6
        return None


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_every_call_is_explained_as_the_tables_judge_it(seed: int) -> None:
    asked = Asked(seed)
    seen: dict[str, int] = {}
    for probe in probes_of(asked.world):
        if probe.caller < 0 or probe.way == DOOR:
            continue
        pair = asked.addresses(probe)
        if pair is None:
            continue
        own, address = pair
        caller = asked.world.owner(probe.caller).identity
        reader = asked.known[caller][0]
        verdict = asked.kernel.connects(caller, own, address, probe.number, probe.protocol)
        # The replica itself asks about the address itself: nothing is left to guess.
        answer = explain(asked.topology, own, address, probe.number, WORDS[probe.protocol], reader)
        assert outcome(answer) == verdict, (probe, answer)
        assert answer.sentence.endswith(".")
        seen[verdict] = seen.get(verdict, 0) + 1
    assert all(seen.get(word, 0) > 20 for word in (NO, YES, REPORTED)), seen


def test_the_internet_is_explained_as_the_routes_and_tables_have_it() -> None:
    asked = Asked(4)
    routes = {route.host for route in asked.boundary.routes}
    for _, workload in asked.known.values():
        for replica in workload.replicas:
            for endpoint in workload.endpoints:
                arrives = asked.kernel.arrives(replica.v4, endpoint.port, endpoint.number)
                assert arrives == NO, "from outside only the gateway is reached"
        for endpoint in workload.endpoints:
            word = WORDS[endpoint.number]
            answer = explain(asked.topology, "internet", workload.identity, endpoint.port, word)
            assert answer.allowed == bool(set(endpoint.hosts) & routes)


def test_gateways_and_the_node_are_explained_as_the_tables_have_them() -> None:
    asked = Asked(5)
    for cell, workload in asked.known.values():
        for endpoint in workload.endpoints:
            word, replica = WORDS[endpoint.number], workload.replicas[0]
            for source, address in ((cell.gateway_identity, cell.gateway4), (3, asked.topology.north4)):
                verdict = asked.kernel.sends(source, address, replica.v4, endpoint.port, endpoint.number)
                answer = explain(asked.topology, source, workload.identity, endpoint.port, word)
                assert outcome(answer) == verdict, (source, endpoint, answer)
            assert not explain(asked.topology, 1, workload.identity, endpoint.port, word).passes
            # Nor does another cell's gateway lead there.
            for other in asked.topology.cells:
                if other.number != cell.number and other.tenant == cell.tenant:
                    answer = explain(asked.topology, other.gateway_identity, workload.identity, endpoint.port)
                    assert not answer.passes
        answer = explain(asked.topology, workload.identity, asked.topology.resolver4, 53, "udp", cell)
        assert answer.allowed


def cell(
    number: int, tenant: int, project: str, environment: str, *workloads: Workload, **more: bool
) -> Cell:
    return Cell(
        number, tenant, f"t{tenant}", project, environment, 500 + number, 90000 + number,
        f"10.64.255.{number}", f"fd63::ff:{number}", workloads=workloads, **more,
    )  # fmt: skip


def component(
    identity: int, name: str, *endpoints: Endpoint, connections: tuple[Connection, ...] = ()
) -> Workload:
    replica = Replica(f"r{identity}", f"10.64.9.{identity}", f"fd63::9:{identity}", True)
    return Workload(
        identity + 256,
        name,
        f"10.65.9.{identity}",
        f"fd63::2:9:{identity}",
        endpoints,
        connections,
        (replica,),
    )


WEB = component(
    1,
    "web",
    Endpoint(1001, "http", 8080, "http", "public", ("shop.acme.apps.test",)),
    connections=(
        Connection(1010, "CDN", external=External(443, "tcp", host="*.example.com")),
        Connection(1011, "NET", external=External(443, "tcp", cidr="203.0.113.0/24")),
        Connection(
            1012, "DESK", external=External(80, "http", host="desk.globex.apps.test"), listener_port=30001
        ),
        Connection(1013, "PROBE", external=External(0, "icmp", cidr="203.0.113.0/24")),
    ),
)
API = component(2, "api", Endpoint(1002, "http", 9000, "http"), Endpoint(1003, "raw", 9001, "tcp"))
VAULT = component(3, "vault", Endpoint(1004, "http", 9000, "http", "tenant"))
SECRET = component(4, "secret", Endpoint(1005, "http", 9000, "http", "public", ("hidden.globex.apps.test",)))
SHOP = cell(1, 1, "shop", "production", WEB, API)
TOPOLOGY = Topology(
    cells=(
        SHOP,
        cell(2, 1, "vault", "production", VAULT),
        cell(3, 1, "shop", "staging", component(5, "web", Endpoint(1006, "http", 8080, "http"))),
        cell(4, 2, "desk", "production", SECRET),
    ),
    north4="10.64.0.2", north6="fd63::1:2", resolver4="10.64.0.3", resolver6="fd63::1:3",
    door4="10.65.0.2", door6="fd63::2:2", public_ports=(80, 8080), apps_domain="apps.test",
    floor=tuple((text, "FLOOR") for text in ("169.254.0.0/16", "10.64.0.0/15", "fd63::/16")),
)  # fmt: skip


def ask(source: str, target: str, port: int = 0, protocol: str = "") -> Explanation:
    return explain(TOPOLOGY, source, target, port, protocol, SHOP)


@pytest.mark.parametrize(
    ("source", "target", "port", "reason"),
    [
        ("web", "api", 9000, "SAME_CELL"),
        ("web", "api.shop", 9000, "SAME_CELL"),
        ("web", "api.shop.cy.internal", 9000, "SAME_CELL"),
        ("web", "api.raw", 0, "SAME_CELL"),
        ("web", "10.65.9.2", 9000, "SAME_CELL"),
        ("10.64.9.1", "10.64.9.2", 9000, "SAME_CELL"),
        ("::ffff:10.64.9.1", "::ffff:10.64.9.2", 9000, "SAME_CELL"),
        ("web", "web", 8080, "SELF"),
        ("web", "10.64.9.1", 1234, "SELF"),
        ("web", "api", 9999, "PORT_NOT_DECLARED"),
        ("web", "vault/vault", 9000, "NOT_CONNECTED"),
        ("web", "vault/vault.http", 0, "NOT_CONNECTED"),
        ("web", "vault.vault", 9000, "NOT_CONNECTED"),
        ("vault/vault", "api", 9000, "VISIBILITY"),
        ("web", "web@staging", 8080, "OTHER_ENVIRONMENT"),
        ("internet", "web", 0, "PUBLIC"),
        ("internet", "shop.acme.apps.test", 0, "PUBLIC"),
        ("198.51.100.1", "api", 9000, "NOT_PUBLIC"),
        ("shop.acme.apps.test", "api", 9000, "SAME_CELL"),
        ("web", "203.0.113.9", 443, "EXTERNAL"),
        ("web", "203.0.113.0/28", 443, "EXTERNAL"),
        ("web", "203.0.0.0/16", 443, "EGRESS_NOT_DECLARED"),
        ("web", "cdn.example.com", 443, "EXTERNAL"),
        ("web", "a.cdn.example.com", 443, "EGRESS_NOT_DECLARED"),
        ("web", "cdn.example.com", 80, "EGRESS_NOT_DECLARED"),
        ("web", "desk.globex.apps.test", 80, "EXTERNAL"),
        ("web", "hidden.globex.apps.test", 80, "EGRESS_NOT_DECLARED"),
        ("web", "internet", 443, "EGRESS_NOT_DECLARED"),
        ("web", "10.65.0.2", 80, "EXTERNAL"),
        ("web", "169.254.169.254", 80, "FLOOR"),
        ("web", "the node", 22, "FLOOR"),
        ("web", "resolver", 53, "RESOLVER"),
        ("web", "resolver", 80, "PLATFORM_ONLY"),
        ("web", "gateway", 9000, "PLATFORM_ONLY"),
        ("web", "north gateway", 30001, "CONNECTION"),
        ("api", "north gateway", 30001, "PLATFORM_ONLY"),
        ("north gateway", "web", 8080, "GATEWAY"),
        ("gateway", "api", 9000, "PLATFORM_ONLY"),
        ("internet", "resolver", 53, "PLATFORM_ONLY"),
        ("resolver", "web", 8080, "PLATFORM_ONLY"),
        ("node", "web", 8080, "NODE"),
        ("web", "another tenant", 0, "OTHER_TENANT"),
        ("another tenant", "web", 0, "OTHER_TENANT"),
    ],
)  # fmt: skip
def test_each_end_that_a_person_can_name_is_understood(
    source: str, target: str, port: int, reason: str
) -> None:
    answer = ask(source, target, port)
    assert answer.reason == reason, answer
    allowed = ("SAME_CELL", "SELF", "PUBLIC", "EXTERNAL", "RESOLVER", "CONNECTION", "GATEWAY")
    assert answer.allowed == (reason in allowed)
    assert answer.sentence.endswith(".")


def test_without_a_port_every_endpoint_is_answered_for() -> None:
    found = explanations(TOPOLOGY, "web", "api", reader=SHOP)
    assert [(answer.endpoint, answer.port, answer.protocol) for answer in found] == [
        ("http", 9000, "tcp"), ("raw", 9001, "tcp")
    ]  # fmt: skip
    assert [a.port for a in explanations(TOPOLOGY, "web", "203.0.113.9", protocol="tcp", reader=SHOP)] == [
        443
    ]


def test_echo_is_what_is_declared_for_networks_and_for_components() -> None:
    assert ask("web", "203.0.113.9", protocol="icmp").allowed
    assert not ask("api", "203.0.113.9", protocol="icmp").allowed
    assert ask("web", "api", protocol="icmp").reason == "ECHO"
    assert "ping: true" in ask("web", "api", protocol="icmp").fix


@pytest.mark.parametrize(
    ("there", "nowhere"),
    [
        ("10.64.9.4", "10.64.9.77"),
        ("fd63::9:4", "fd63::9:77"),
        ("10.65.9.4", "10.65.9.77"),
        ("10.64.255.4", "10.64.255.77"),
        ("hidden.globex.apps.test", "nothing.globex.apps.test"),
    ],
)
def test_a_stranger_is_answered_like_nobody(there: str, nowhere: str) -> None:
    for port in (0, 80, 9000):
        answers = [str(explanations(TOPOLOGY, "web", end, port, reader=SHOP)) for end in (there, nowhere)]
        assert answers[0].replace(there, "X") == answers[1].replace(nowhere, "X")
    for words in ("secret", "desk/secret", "secret.desk", "desk/secret@production"):
        messages = []
        for word in (words, words.replace("secret", "nobody")):
            try:
                messages.append(str(ask("web", word)))
            except UnknownEndError as error:
                messages.append(f"{error.message} {error.following}")
        assert messages[0].replace("secret", "X") == messages[1].replace("nobody", "X")


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("web", "nosuch"), ("nosuch", "web"), ("web", "shop/nosuch"), ("web", "a b"), ("web", ""), ("web", "web@nowhere"),
        ("internet", "node"), ("internet", "198.51.100.7"), ("internet", "nothing.globex.apps.test"),
    ],
)  # fmt: skip
def test_what_names_nothing_is_said_with_what_to_write_instead(source: str, target: str) -> None:
    with pytest.raises(UnknownEndError) as caught:
        ask(source, target)
    assert caught.value.message.endswith(".")
    assert caught.value.following
