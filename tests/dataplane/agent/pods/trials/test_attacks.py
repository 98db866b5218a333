"""From inside a tenant's pod, as its user in its container and with every capability in its network: no way to
the other tenant, to the platform, to the cluster, to the nodes; on one node and between two."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest

from dataplane import addresses
from infra.cluster.settings import NODES
from tests.cluster import LONGEST, until
from tests.dataplane.agent.pods.trials.stage import (
    ATTACKERS,
    CLOSED,
    OTHER,
    REPLICAS,
    SHOP,
    TCP,
    UDP,
    USER,
    WEB,
    Stage,
    together,
)
from tests.e2e.scripts import FORGE, REACH, RESOLVER, RIGHTS, ROADS, SIGHT, SURFACE

pytestmark = [pytest.mark.cluster, pytest.mark.root, pytest.mark.timeout(LONGEST)]
KUBELET, API = 10250, 443
#: Of its own processes alone, which are its user's.
HARMLESS = {"ptrace", "write /proc/1/mem"}
#: What the runtime's own profile (containerd 1.6) lets through where a machine's doesn't. Netlink is of the
#: pod's own network, where it has no rights; sockets of virtual machines are in docs/threat-model.md.
RUNTIMES_OWN = {
    f"netlink {kind}" for kind in ("diag", "xfrm", "audit", "connector", "netfilter", "events", "generic")
} | {"family vsock stream"}


def theirs(stage: Stage) -> list[tuple[str, int]]:
    """Everything of acme: pods by each address, services."""
    found = []
    for replica, (_, _, namespace, _, _) in REPLICAS.items():
        if namespace == SHOP:
            v4, v6 = stage.addresses(replica)
            found += [(a, port) for a in (v4, v6, f"::ffff:{v4}") for port in (TCP, UDP, CLOSED)]
    for identity in (WEB, OTHER):
        found += [(a, port) for a in addresses.service(stage.plane.config, identity) for port in (TCP, UDP)]
    return found


def platforms(stage: Stage) -> list[tuple[str, int]]:
    """Gateways by each of their addresses, resolvers on other ports."""
    config = stage.plane.config
    gateway = [*addresses.workload(config, addresses.GATEWAY_NORTH)]
    for cell in (27, 28):
        gateway += addresses.cell_gateway(config, cell)
    found = [(a, port) for a in gateway for port in GATEWAY_PORTS]
    return found + [(a, port) for a in addresses.workload(config, addresses.RESOLVER) for port in (22, 853)]


GATEWAY_PORTS = (80, addresses.NORTH_HTTP_PORT, addresses.GATEWAYS_PORT, 9901, 10000)
NODE_PORTS = (22, 53, KUBELET, addresses.GATEWAYS_PORT)


def clusters(stage: Stage) -> list[tuple[str, int]]:
    """Nodes by each of their addresses, kubelets, the API server, etcd, metadata."""
    cluster = stage.plane.cluster
    found: list[tuple[str, int]] = []
    for node in NODES:
        own = [str(a.ip) for a in cluster.node(node)] + [str(pods[1]) for pods in cluster.pods(node)]
        found += [(a, port) for a in own for port in NODE_PORTS]
    control = [str(a.ip) for a in cluster.control]
    found += [(a, port) for a in (*control, str(cluster.api_service)) for port in (API, 2379)]
    near = ("169.254.169.254", "169.254.1.1", "fe80::1%eth0", "ff02::1%eth0")
    return found + [(a, port) for a in near for port in (80, KUBELET)]


@pytest.fixture(scope="module")
def listening(stage: Stage) -> Iterator[Stage]:
    """Somebody answers on each of those ports, so that a way there would be noticed."""
    plane, config = stage.plane, stage.plane.config
    for node in NODES:
        for name, tcp in (("gateway", GATEWAY_PORTS), ("resolver", (22, 853))):
            path = plane.inside(node, f"/run/netns/{config.name}-{name}")
            plane.server.open(path, name, [*tcp], [*tcp])
        plane.server.open(stage.network_of(f"node{node}"), "node", [22, addresses.GATEWAYS_PORT], [22, 53])
    yield stage
    for name in ("gateway", "resolver", "node"):
        plane.server.forget(name)


def reached(found: dict[str, str]) -> list[str]:
    return sorted(name for name, outcome in found.items() if outcome == "reached")


def test_what_may_be_reached_is_so_the_attacks_can_tell(listening: Stage) -> None:
    stage, node = listening, listening.plane.cluster.node(2)[0].ip
    mine = [(a, TCP) for replica in ("r21", "r22") for a in stage.addresses(replica)]
    code = REACH % {"targets": json.dumps([*mine, (stage.addresses("r25")[0], TCP)]), "timeout": 1}
    assert reached(stage.run_as_root("r23", code)) == sorted(f"{a}:{port}/tcp" for a, port in mine)
    # The attacker's own, and what listens for everybody is there for who may.
    code = REACH % {"targets": json.dumps([("127.0.0.1", TCP)]), "timeout": 1}
    assert reached(stage.run_as_user("r26", code)) == ["127.0.0.1:8080/tcp"]
    asked = [("tcp", str(node), port) for port in (22, addresses.GATEWAYS_PORT)]
    assert stage.plane.ask(1, "", asked) == ["node", "gateway"]


@pytest.mark.parametrize("what", [theirs, platforms, clusters], ids=lambda what: what.__name__)
def test_nothing_is_reached_from_either_node(listening: Stage, what: Any) -> None:
    tried = what(listening)
    code = REACH % {"targets": json.dumps(tried), "timeout": 0.3}
    work = [
        partial(run, replica, code)
        for replica in ATTACKERS.values()
        for run in (listening.run_as_user, listening.run_as_root)
    ]
    for found in together(*work):
        assert len(found) == 2 * len(tried)
        assert reached(found) == []


def test_no_other_road_leads_there(listening: Stage) -> None:
    """Data with the opening, many paths, mapped addresses, other transports."""
    targets = [(*listening.addresses(replica), TCP) for replica in ("r21", "r22")]
    code = ROADS % {"targets": json.dumps(targets)}
    for found in together(
        *(partial(run, replica, code) for replica in ATTACKERS.values()
          for run in (listening.run_as_user, listening.run_as_root))
    ):  # fmt: skip
        assert {name: outcome for name, outcome in found.items() if outcome.startswith("reached")} == {}


@pytest.mark.parametrize("node", NODES)
def test_forged_sources_are_dropped_where_they_are_made(stage: Stage, node: int) -> None:
    client, web = stage.addresses("r23"), [stage.addresses(name) for name in ("r21", "r22")]
    pairs = [(4, client[0], v4) for v4, _ in web] + [(6, client[1], v6) for _, v6 in web]
    # FORGE sends where nobody listens: it is what the node says of it that counts.
    code = FORGE % {"pairs": json.dumps(pairs)}
    for run in (stage.run_as_user, stage.run_as_root):
        stage.denied()

        def spoofed(run: Callable[[str, str], Any] = run) -> bool:
            # What isn't refused before it is sent waits for the pod's next hop to be known.
            assert "sent" in run(ATTACKERS[node], code).values()
            seen = {reason for source, _, _, reason in stage.denied() if source == USER}
            return "SPOOFED_SOURCE" in seen

        until(spoofed, 20, "nobody noticed")


def test_a_container_has_no_rights_to_begin_with(stage: Stage) -> None:
    found = stage.run_as_user("r26", RIGHTS)
    assert {name for name, outcome in found.items() if outcome != "refused"} <= HARMLESS


def test_the_kernels_surface_is_closed(stage: Stage) -> None:
    found = stage.run_as_user("r26", SURFACE)
    assert {name for name, outcome in found.items() if outcome != "refused"} - HARMLESS <= RUNTIMES_OWN
    assert len(found) > 120


def test_nothing_of_the_node_is_in_sight(stage: Stage) -> None:
    config = stage.plane.config
    paths = [config.home, config.agent_dir, config.run, config.bpffs, "/run/containerd/containerd.sock"]
    paths += ["/etc/cni/net.d", "/opt/cni/bin", "/var/lib/kubelet", "/var/run/secrets/kubernetes.io"]
    found = stage.run_as_user("r26", SIGHT % {"paths": json.dumps([str(path) for path in paths])})
    assert found["there"] == []
    assert found["interfaces"] == ["eth0", "lo"]
    assert "/sys/fs/bpf" not in found["folders"]
    assert set(found["folders"].get("/sys/class/net", ["eth0", "lo"])) == {"eth0", "lo"}
    assert not [name for name in found["sockets"] if "cytoplane" in name or "containerd" in name]
    assert not [line for line in found["commands"] if "dataplane" in line or "kubelet" in line]


def test_the_resolver_gives_nothing_away_and_goes_on(stage: Stage) -> None:
    resolver = addresses.workload(stage.plane.config, addresses.RESOLVER)
    names = ["web.shop", "web", "client", "web.shop.cy.internal", "shop", "acme", "cy.internal", "", "*.shop",
             "kubernetes.default.svc", "kubernetes.default.svc.cluster.local", "WEB.SHOP", "web.shop."]  # fmt: skip
    values = {"servers": list(resolver), "names": names, "own": "user"}
    with stage.plane.resolver(1):
        own = ("dns", resolver.v4, 53, "user")
        until(lambda: stage.plane.asked(1, "r26", own) != [""], 20, "nobody answers")
        found = stage.run_as_user("r26", RESOLVER % {key: json.dumps(value) for key, value in values.items()})
        given = {asked: outcome for asked, outcome in found["strangers"].items() if outcome and outcome[1]}
        assert given == {}
        # Whoever holds every connection that it may have still gets answers to datagrams; so do others.
        assert found["answered"] == {server: [0, 1] for server in resolver}
        assert stage.plane.asked(1, "r23", ("dns", resolver.v4, 53, "web")) != [""]
