"""What desired state becomes on a Kubernetes node: pure, so every case is a document."""

from __future__ import annotations

import copy
import ipaddress
import json
from pathlib import Path
from typing import Any

import pytest

from bpf.tables import ALLOW, INGRESS
from dataplane import addresses
from dataplane.agent import parts
from dataplane.agent.pods.adapt import adapt, adapted_rules, probes, read
from dataplane.agent.pods.others import Others
from dataplane.agent.pods.placements import Placement, Said, believed
from dataplane.gateway.files import _serving

PLACE = "cell-7-0123abcd"


def endpoint(replica: str, identity: int, number: int, **probe: Any) -> dict[str, Any]:
    return {
        "id": replica,
        "identity": identity,
        "v4": f"10.64.35.{number}",
        "v6": f"fd63:7970:0:1::{number}",
        "process": {"image": "i", "probe": {"type": "none", "port": 0, **probe}},
        "pod": {"namespace": PLACE},
    }


def document() -> dict[str, Any]:
    backends = [["r1", "10.64.35.1", 8080], ["r2", "10.64.35.2", 8080], ["r3", "10.64.35.3", 8080]]
    sixth = [["r1", "fd63:7970:0:1::1", 8080], ["r2", "fd63:7970:0:1::2", 8080]]
    return {
        "generation": 3,
        "endpoints": [
            endpoint("r1", 300, 1, type="http", port=8080),
            endpoint("r2", 300, 2, type="http", port=8080),
            endpoint("r3", 301, 3, type="tcp", port=9000),
            endpoint("r4", 302, 4),
        ],
        "boundary": {
            "addresses": {
                "10.64.0.2": [3, "gateway"],
                "10.64.35.1": [300, "r1"],
                "10.64.35.2": [300, "r2"],
                "fd63:7970:0:1::1": [300, "r1"],
                "fd63:7970:0:1::2": [300, "r2"],
            },
            "services": [
                {
                    "consumer": 0,
                    "address": "10.65.1.1",
                    "port": 8080,
                    "backends": backends,
                    "weights": [5, 7, 9],
                },
                {"consumer": 0, "address": "fd63::1", "port": 8080, "backends": sixth, "weights": []},
                {
                    "consumer": 9,
                    "address": "10.65.1.2",
                    "port": 80,
                    "backends": [["gateway", "10.64.2.1", 20001]],
                },
            ],
            "identities": {
                "300": {"cell": 7, "policy": [[301, 8080, 6, 1, 1, 1001]], "external": []},
                "301": {"cell": 7, "policy": [], "external": []},
                "302": {"cell": 7, "policy": [], "external": []},
                "2": {"cell": 0, "policy": [], "external": []},
            },
            "floor": [["169.254.0.0/16", "FLOOR"]],
            "gateway": {
                "routes": [],
                "clusters": [{"name": "c", "backends": backends, "weights": [1, 2, 3]}],
            },
        },
    }


PLACED = {
    "r1": Placement("node1", "u1", PLACE, "10.112.128.5", "fd63:c::5"),
    "r2": Placement("node2", "u2", PLACE, "10.112.130.5", ""),
}


def test_symbolic_addresses_become_the_pods_own_and_what_has_none_is_left_out() -> None:
    found = adapt(document(), PLACED)
    assert found["boundary"]["addresses"] == {
        "10.64.0.2": [3, "gateway"],
        "10.112.128.5": [300, "r1"],
        "10.112.130.5": [300, "r2"],
        "fd63:c::5": [300, "r1"],
    }
    first, second, third = found["boundary"]["services"]
    assert first["backends"] == [["r1", "10.112.128.5", 8080], ["r2", "10.112.130.5", 8080]]
    # Each keeps its own share.
    assert first["weights"] == [5, 7]
    assert second["backends"] == [["r1", "fd63:c::5", 8080]]
    assert third["backends"] == [["gateway", "10.64.2.1", 20001]]
    assert found["placements"] == {"r1": "node1", "r2": "node2"}
    assert [(e["id"], e["v4"], e["v6"]) for e in found["endpoints"]] == [
        ("r1", "10.112.128.5", "fd63:c::5"),
        ("r2", "10.112.130.5", ""),
        ("r3", "", ""),
        ("r4", "", ""),
    ]


def test_the_gateway_gets_the_same_with_the_same_shares() -> None:
    (cluster,) = adapt(document(), PLACED)["boundary"]["gateway"]["clusters"]
    backends, weights = _serving(cluster, None)
    assert backends == [["r1", "10.112.128.5", 8080], ["r2", "10.112.130.5", 8080]]
    assert weights == [1, 2]


def test_without_any_placement_nothing_leads_anywhere_and_everything_is_there() -> None:
    found = adapt(document(), {})
    assert found["boundary"]["addresses"] == {"10.64.0.2": [3, "gateway"]}
    assert [service["backends"] for service in found["boundary"]["services"][:2]] == [[], []]
    assert found["boundary"]["identities"].keys() == document()["boundary"]["identities"].keys()


def test_what_was_given_stays_as_it_was() -> None:
    given, before = document(), copy.deepcopy(document())
    adapt(given, PLACED, [("10.112.128.0/17", "FLOOR")])
    assert given == before
    assert json.loads(json.dumps(adapt(given, PLACED))) == adapt(given, PLACED)


def test_what_was_read_once_is_adapted_again_and_again_like_the_document_itself() -> None:
    """As an agent keeps it: units of JSON, of which each look at a part reads that part."""
    given = document()
    unit = {"endpoints": given["endpoints"], "boundary": given["boundary"]}
    kept = parts.Document(1, 3, {"0": parts.encode(unit)})
    whole = read(kept)
    assert whole["endpoints"] is whole["endpoints"]
    for there in (PLACED, {}, {"r2": PLACED["r2"]}, PLACED):
        found = json.loads(json.dumps(adapt(whole, there), default=dict))
        assert found == json.loads(json.dumps(adapt(kept, there), default=dict))
        assert found["boundary"]["services"] == adapt(given, there)["boundary"]["services"]


def test_the_clusters_own_networks_are_closed_besides_what_is_closed_already() -> None:
    found = adapt(document(), {}, [("10.112.128.0/17", "FLOOR"), ("10.112.1.11/32", "NODE")])
    assert found["boundary"]["floor"] == [
        ["169.254.0.0/16", "FLOOR"],
        ["10.112.128.0/17", "FLOOR"],
        ["10.112.1.11/32", "NODE"],
    ]


def test_kubelet_may_ask_the_declared_probe_port_of_each_component_and_no_other() -> None:
    found = adapt(document(), PLACED)["boundary"]["identities"]
    node = addresses.IDENTITY_NODE
    assert found["300"]["policy"] == [[301, 8080, 6, 1, 1, 1001], [node, 8080, 6, INGRESS, ALLOW, 4]]
    assert found["301"]["policy"] == [[node, 9000, 6, INGRESS, ALLOW, 4]]
    assert found["302"]["policy"] == []
    assert found["2"]["policy"] == []


def test_rules_that_come_ahead_of_the_rest_have_the_probes_too() -> None:
    probed = probes(document()["endpoints"])
    changed: dict[str, Any] = {
        "300": {"cell": 7, "policy": [], "external": []},
        "302": None,
        "999": {"policy": []},
    }
    found = adapted_rules(changed, probed)
    assert found is not None
    assert found["300"] == {
        "cell": 7,
        "policy": [[addresses.IDENTITY_NODE, 8080, 6, INGRESS, ALLOW, 4]],
        "external": [],
    }
    assert found["302"] is None and found["999"] == {"policy": []}
    assert adapted_rules(None, probed) is None


# What nodes are believed.
PODS = [ipaddress.ip_network("10.112.128.0/17"), ipaddress.ip_network("fd63:c::/60")]
OWN = [ipaddress.ip_network("10.64.0.0/16")]


def said(node: str, *addresses_: str, **pods: Placement) -> Said:
    return Said(node, addresses_ or (f"10.112.1.{node[-1]}",), pods)


def test_what_a_node_publishes_is_read_back_as_it_was() -> None:
    whole = said("node1", r1=Placement("node1", "u1", PLACE, "10.112.128.5", "fd63:c::5", 12.5))
    assert Said.read(json.loads(json.dumps(whole.document()))) == whole


@pytest.mark.parametrize(
    "change",
    [
        {"v4": "10.112.128.300"},
        {"v4": "fd63:c::5"},
        {"v4": "", "v6": ""},
        {"v6": "10.112.128.5"},
        {"uid": ""},
        {"uid": 7},
        {"namespace": None},
        {"since": "late"},
        {"since": float("nan")},
        {"since": float("inf")},
        {"since": -1},
        {"since": 10**400},
        {"v6": "fd63:c::5%eth0"},
        {"v6": "::ffff:10.112.128.6"},
        {"v4": None},
    ],
)
def test_what_is_damaged_is_not_read(change: dict[str, Any]) -> None:
    whole = said("node1", r1=Placement("node1", "u1", PLACE, "10.112.128.5", "")).document()
    whole["pods"]["r1"] |= change
    with pytest.raises((ValueError, TypeError, LookupError)):
        Said.read(whole)


@pytest.mark.parametrize("address", ["fd63:c::1%eth0", "::ffff:10.112.128.6", "", 7])
def test_a_node_has_no_address_that_is_another_ones_in_other_words(address: Any) -> None:
    whole = said("node1").document() | {"addresses": [address]}
    with pytest.raises(ValueError):
        Said.read(whole)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"pods": 1e999}', "[]", "null", "{"])
def test_what_one_node_says_and_nobody_understands_leaves_the_others_heard(text: str, tmp_path: Path) -> None:
    good = said("node2", r1=Placement("node2", "u1", PLACE, "10.112.128.5", ""))
    others = Others(None, "node1", tmp_path / "placements.json", lambda: None)  # type: ignore[arg-type]
    damaged = json.dumps(said("node3").document() | {"pods": {"r2": {"since": 10**400}}})
    texts = {"placements-node3": text, "placements-node4": damaged}
    others._take({**texts, "placements-node2": json.dumps(good.document())}, whole=True)
    assert others.said() == [good]


@pytest.mark.parametrize("name", ["r0", "r01", "x1", "r", "r1\n", "gateway"])
def test_only_replicas_have_placements(name: str) -> None:
    whole = said("node1", r1=Placement("node1", "u1", PLACE, "10.112.128.5", "")).document()
    whole["pods"][name] = whole["pods"].pop("r1")
    with pytest.raises(ValueError):
        Said.read(whole)


def test_a_replica_is_only_in_its_cells_namespace() -> None:
    good = Placement("node1", "u1", PLACE, "10.112.128.5", "")
    stolen = Placement("node1", "u1", "cell-8-0123abcd", "10.112.128.6", "")
    endpoints = document()["endpoints"]
    assert believed([said("node1", r1=good, r2=stolen)], endpoints, PODS, OWN) == {"r1": good}
    assert believed([said("node1", r9=good)], endpoints, PODS, OWN) == {}


@pytest.mark.parametrize(
    "address",
    ["10.112.1.2", "10.112.1.1", "192.0.2.1", "10.64.0.2", "127.0.0.1", "169.254.169.254", "224.0.0.1"],
)
def test_nobody_is_believed_an_address_that_no_pod_can_have(address: str) -> None:
    pod = Placement("node1", "u1", PLACE, address, "")
    assert believed([said("node1", r1=pod), said("node2")], document()["endpoints"], PODS, OWN) == {}
    # Where the cluster's ranges aren't known, nodes', the platform's and special addresses stay closed.
    found = believed([said("node1", r1=pod), said("node2")], document()["endpoints"], [], OWN)
    assert bool(found) == (address == "192.0.2.1")


def test_two_replicas_with_one_address_are_none() -> None:
    first = Placement("node1", "u1", PLACE, "10.112.128.5", "")
    second = Placement("node2", "u2", PLACE, "10.112.128.5", "fd63:c::6")
    third = Placement("node2", "u3", PLACE, "10.112.128.7", "")
    everything = [said("node1", r1=first), said("node2", r2=second, r3=third)]
    assert believed(everything, document()["endpoints"], PODS, OWN) == {"r3": third}


def test_of_two_pods_of_a_replica_the_later_one_counts_whoever_is_heard_first() -> None:
    old = Placement("node1", "u1", PLACE, "10.112.128.5", "", 10.0)
    new = Placement("node2", "u2", PLACE, "10.112.130.5", "", 20.0)
    for order in (
        (said("node1", r1=old), said("node2", r1=new)),
        (said("node2", r1=new), said("node1", r1=old)),
    ):
        assert believed(order, document()["endpoints"], PODS, OWN) == {"r1": new}


def test_what_a_node_sees_itself_nobody_elsewhere_can_take_away_by_claiming_it() -> None:
    mine = Placement("node1", "u1", PLACE, "10.112.128.5", "")
    liar = Placement("node2", "u2", PLACE, "10.112.128.5", "", 99.0)
    everything = [said("node1", r1=mine), said("node2", r2=liar)]
    assert believed(everything, document()["endpoints"], PODS, OWN, "node1") == {"r1": mine}
