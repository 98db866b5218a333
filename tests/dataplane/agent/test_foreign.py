"""Taking over an interface that a CNI made: closed first, found again, given back."""

from __future__ import annotations

import ipaddress
import json
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from pyroute2 import IPRoute

from bpf import attach, layout, loader
from bpf import sys as bpf
from bpf.tables import Tables
from dataplane.agent import filters, foreign, host, network
from dataplane.agent.kernel import Kernel
from infra.config import Config
from tests.bpf.conftest import run_loader
from tests.bpf.laboratory import TCP, Member
from tests.bpf.nodes import PODS4, WAY4, Ear, Node, Place, node_rules, send_datagram
from tests.bpf.versions import Change, version

pytestmark = pytest.mark.root


@pytest.fixture(params=["ptp", "bridge"])
def node(request: pytest.FixtureRequest, kernel: Config, tables: Tables) -> Iterator[Node]:
    made = Node(kernel, tables, request.param)
    try:
        made.build()
        yield made
    finally:
        made.close()


def filter_names(place: Place, link: str) -> list[str]:
    """What is on an interface, both sides."""
    found = []
    for side in ("ingress", "egress"):
        command = ["ip", "netns", "exec", place.name, "tc", "-j", "filter", "show", "dev", link, side]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        found += [entry["options"]["bpf_name"] for entry in json.loads(done.stdout) if "options" in entry]
    return found


def test_what_was_found_is_the_pods_own(node: Node) -> None:
    place = node.wire("a", 5)
    found = node.here.inside(lambda: foreign.find_foreign("r1", place.path))
    assert (found.name, found.ifname, found.addresses) == ("r1", "vetha", (place.v4, place.v6))
    assert bool(found.bridge) == (node.layout == "bridge")
    # From another namespace the same number means another interface, or none.
    with pytest.raises(network.NetworkError, match="isn't on this node"):
        node.far.inside(lambda: foreign.find_foreign("r1", place.path))


def test_a_plugin_that_leads_past_the_nodes_end_isnt_supported(node: Node) -> None:
    place = node.wire("a", 5)
    node.here.ip(
        "link add link way name other type macvlan mode bridge", f"link set other netns {place.name}"
    )
    with pytest.raises(network.NetworkError, match="isn't supported"):
        node.here.inside(lambda: foreign.find_foreign("r1", place.path, "other"))


def test_an_interface_passes_nothing_until_it_is_known_nor_after_it_was_given_back(node: Node) -> None:
    a = node.pod("a", 400, 5)
    place = node.wire("b", 6)
    found = node.here.inside(lambda: foreign.find_foreign("b", place.path))
    node.here.inside(lambda: attach.attach_foreign(node.config, found.ifindex))
    node.tables.apply_identity(401, 1, [])
    with Ear(a.namespace.path, 8080, patience=1.5) as ear:  # its first question was refused
        # Known by its address elsewhere, it isn't known here.
        send_datagram(place.path, place.v4, a.v4, 8080)
        assert ear.heard() == []
        own = [network.Address(place.v4, place.v6, 401)]
        node.here.inside(lambda: foreign.introduce_foreign(node.config, node.tables, found, own))
        node.pods["b"] = Member("b", 401, place.v4, place.v6, "", "", found)
        node.open_everything(8080)
        send_datagram(place.path, place.v4, a.v4, 8080)
        send_datagram(place.path, place.v6, a.v6, 8080)
        assert set(ear.heard()) == {place.v4, place.v6}
        node.here.inside(lambda: foreign.release_foreign(node.tables, found))
        node.refusals()
        send_datagram(place.path, place.v4, a.v4, 8080)
        assert ear.heard() == [] and "NOT_READY" in node.refusals(housekeeping=True)
    assert not {place.v4, place.v6} & node.tables.addresses().keys()


def test_a_pod_that_comes_in_the_middle_of_an_upgrade_is_judged_too(node: Node) -> None:
    place = node.wire("a", 5)
    found = node.here.inside(lambda: foreign.find_foreign("a", place.path))
    own = [network.Address(place.v4, place.v6, 400)]
    introduce = partial(foreign.introduce_foreign, node.config, node.tables, found, own, judged=False)
    node.here.inside(introduce)
    node.pods["a"] = Member("a", 400, place.v4, place.v6, "", "", found)
    before = filters_of(node, found.ifindex)
    assert all(before.values())
    node.here.inside(introduce)
    assert filters_of(node, found.ifindex) == before


def filters_of(node: Node, ifindex: int) -> dict[str, list[int]]:
    return node.here.inside(lambda: filters.programs([ifindex]))[ifindex]


def test_an_agent_that_restarts_takes_pods_up_as_they_are(node: Node) -> None:
    a, b = node.pod("a", 400, 5), node.pod("b", 401, 6)
    b.listen(TCP, 8080)
    node.open_everything(8080)
    open_call = a.connected(b.v6, 8080)
    tables = Tables(node.config)
    try:
        for name, member in (("a", a), ("b", b)):
            adopt = partial(foreign.adopt_foreign, node.config, name, member.namespace.path)
            found = node.here.inside(adopt)
            assert found is not None and found == member.namespace
            own = [network.Address(member.v4, member.v6, member.identity)]
            node.here.inside(partial(foreign.introduce_foreign, node.config, tables, found, own))
        open_call.sendall(b"still")
        assert open_call.recv(64) == b"still"
        assert a.call(b.v4, 8080, TCP, 2) == "b"
    finally:
        open_call.close()
        tables.close()
    subprocess.run(["ip", "-n", node.here.name, "link", "del", "vethb"], check=True)
    assert node.here.inside(lambda: foreign.adopt_foreign(node.config, "b", b.namespace.path)) is None


def test_an_agent_that_remembers_nothing_closes_what_another_one_left(node: Node) -> None:
    a, b = node.pod("a", 400, 5), node.pod("b", 401, 6)
    b.listen(TCP, 8080)
    node.open_everything(8080)
    assert a.call(b.v4, 8080, TCP, 2) == "b"
    kernel = Kernel(node.config)
    try:
        left = {member.namespace.ifindex for member in (a, b)}
        assert node.tables.foreign() == left
        gone = a.namespace.ifindex
        assert node.here.inside(lambda: kernel.forget_pods(left - {gone})) == {gone}
        assert node.tables.foreign() == left - {gone}
        assert gone not in {ifindex for _, ifindex in node.tables.addresses().values()}
        callers = node.tables._maps["callers"].items()
        assert gone not in {layout.CALLER.unpack(value)[1] for _, value in callers}
        assert a.call(b.v4, 8080, TCP, 1) == ""
    finally:
        kernel.connections.close()


def test_programs_that_were_taken_off_are_put_back_and_only_ours_are_taken_off(node: Node) -> None:
    a = node.pod("a", 400, 5)
    ours = [f"{node.config.name}:from_workload", f"{node.config.name}:to_workload"]
    assert filter_names(node.here, "vetha") == ours
    take_all_off(node.here, "vetha")
    index = a.namespace.ifindex
    assert node.here.inside(lambda: filters.repair(node.config, [index])) == [index]
    assert filter_names(node.here, "vetha") == ours
    guard = f"{node.config.name}:to_underlay"
    assert filter_names(node.here, "way") == [guard]
    # An upgrade's way: every interface gets this layout's programs, with what others have beside.
    node.here.inside(lambda: others_filter(node.config, "way", priority=9))
    node.here.inside(lambda: attach.renew(node.config))
    assert filter_names(node.here, "vetha") == ours
    assert filter_names(node.here, "way") == [guard, "others"]
    node.here.inside(lambda: attach.detach_all(node.config))
    assert filter_names(node.here, "vetha") == []
    assert filter_names(node.here, "way") == ["others"]


def test_another_layouts_programs_take_the_place_of_these_and_back(node: Node, tmp_path: Path) -> None:
    a = node.pod("a", 400, 5)
    way = node.here.inside(lambda: socket.if_nametoindex("way"))
    other = version(
        tmp_path / "version",
        Change("lib/maps.h", "#pragma once\n", 'CY_MAP("hash", __u32, __u32, more, 64, BPF_F_NO_PREALLOC)\n'),
    )
    own = loader.pins(node.config)
    loaded = run_loader(node.config, other, ("-m", "bpf.loader", "load", "--hold"))
    assert '"error"' not in loaded.stdout, loaded.stdout
    (there,) = (each for each in node.config.bpffs.iterdir() if each.name != own.name)
    try:
        renew = "from bpf import attach; from infra import config; attach.renew(config.load())"
        done = node.here.inside(lambda: run_loader(node.config, other, ("-c", renew)))
        assert done.returncode == 0, done.stderr
        assert judging(node, a.namespace.ifindex, way) == pinned(there)
        node.here.inside(lambda: attach.renew(node.config))
        assert judging(node, a.namespace.ifindex, way) == pinned(own)
    finally:
        node.here.inside(lambda: attach.renew(node.config))
        shutil.rmtree(there)


def judging(node: Node, pod: int, way: int) -> list[int]:
    """Ids of the programs on a pod's interface and on the one to other nodes."""
    found = node.here.inside(lambda: filters.programs([pod, way]))
    return [*found[pod]["from_workload"], *found[pod]["to_workload"], *found[way]["to_workload"]]


def pinned(folder: Path) -> list[int]:
    found = []
    for name in ("from_workload", "to_workload", "to_underlay"):
        descriptor = bpf.object_get(folder / "programs" / name)
        found.append(bpf.info(descriptor)["id"])
        os.close(descriptor)
    return found


def take_all_off(place: Place, link: str) -> None:
    command = ["ip", "netns", "exec", place.name, "tc", "qdisc", "del", "dev", link, "clsact"]
    subprocess.run(command, check=True)


def others_filter(config: Config, link: str, priority: int, name: str = "others") -> None:
    """Somebody else's program on the way out of an interface."""
    index = socket.if_nametoindex(link)
    program = bpf.object_get(loader.pins(config) / "programs" / "to_underlay")
    with IPRoute() as ip:
        if not any(q.get_attr("TCA_KIND") == "clsact" for q in ip.get_qdiscs(index=index)):
            ip.tc("add", "clsact", index)
        ip.tc(
            "add-filter", "bpf", index, 1, fd=program, name=name, parent=0xFFFFFFF3, prio=priority,
            protocol=3, direct_action=True,
        )  # fmt: skip
    os.close(program)


def introduce_behind(node: Node, name: str) -> int:
    """A pod's interface on which somebody's filter judges first is introduced; its index."""
    place = node.wire("a", 5)
    node.here.inside(lambda: others_filter(node.config, "vetha", 1, name))
    found = node.here.inside(lambda: foreign.find_foreign("a", place.path))
    own = [network.Address(place.v4, place.v6, 400)]
    node.here.inside(lambda: foreign.introduce_foreign(node.config, node.tables, found, own))
    return found.ifindex


@pytest.mark.parametrize("name", ["others", "cy98:to_workload"], ids=["others", "another installation's"])
def test_nobody_who_judges_first_is_pushed_aside(node: Node, name: str) -> None:
    living = node.config.bpffs.with_name("cytoplane-98")
    living.mkdir()
    try:
        with pytest.raises(attach.NotOurs, match="judges first"):
            introduce_behind(node, name)
    finally:
        living.rmdir()
    assert node.tables.endpoints() == {}
    assert filter_names(node.here, "vetha") == [name]


def test_what_an_installation_left_that_is_gone_makes_room(node: Node) -> None:
    ifindex = introduce_behind(node, "cy99:to_workload")
    assert ifindex in node.tables.endpoints()
    own = node.config.name
    assert filter_names(node.here, "vetha") == [f"{own}:from_workload", f"{own}:to_workload"]


def test_an_underlay_that_isnt_one_any_more_is_left_as_it_was(node: Node) -> None:
    assert node.here.inside(lambda: foreign.ensure_underlays(node.config, node.tables, [])) == set()
    assert filter_names(node.here, "way") == [] and node.tables.underlays() == set()
    with pytest.raises(OSError, match="no interface"):
        node.here.inside(lambda: foreign.ensure_underlays(node.config, node.tables, ["nothing"]))


def test_a_bridges_stranger_changes_nothing_the_node_knows_of_a_pod(node: Node) -> None:
    if node.layout != "bridge":
        pytest.skip("a veth of one's own has no strangers")
    a = node.pod("a", 400, 5)
    stranger = node.wire("x", 66)
    node.open_everything(8080)
    # It takes the pod's hardware and network addresses, and says so.
    mac = a.namespace.mac.hex(":")
    stranger.ip("link set eth0 down", f"link set eth0 address {mac}", "link set eth0 up")
    stranger.ip(f"addr add {a.v4}/24 dev eth0", f"addr add {a.v6}/64 dev eth0 nodad")
    stranger.ip(f"neigh replace {PODS4}1 lladdr ff:ff:ff:ff:ff:ff dev eth0 nud permanent")
    for _ in range(3):
        send_datagram(stranger.path, a.v4, f"{PODS4}1", 9)
    with Ear(a.namespace.path, 8080) as ours, Ear(stranger.path, 8080) as theirs:
        send_datagram(node.far.path, node.far.v4, a.v4, 8080)
        send_datagram(node.far.path, node.far.v6, a.v6, 8080)
        assert (ours.heard(), theirs.heard()) == ([node.far.v4, node.far.v6], [])
    found = a.namespace
    assert isinstance(found, network.Foreign)
    node.here.inside(lambda: foreign.release_foreign(node.tables, found))
    assert told(node) == set()


def test_what_an_agent_told_the_node_goes_even_if_it_died_before_the_pod(node: Node) -> None:
    if node.layout != "bridge":
        pytest.skip("a veth of one's own takes its neighbours with it")
    a, b = node.pod("a", 400, 5), node.pod("b", 401, 6)
    # A new port may give the bridge another hardware address, whereupon the kernel forgets them all.
    pods = [member.namespace for member in (a, b) if isinstance(member.namespace, network.Foreign)]
    node.here.inside(lambda: foreign.hold_neighbours(node.config, pods))
    assert told(node) == {a.v4, a.v6, b.v4, b.v6}
    node.tables.remove_endpoint(a.namespace.ifindex)
    node.here.inside(lambda: foreign.sweep_neighbours(node.config, node.tables))
    assert told(node) == {b.v4, b.v6}


def told(node: Node) -> set[str]:
    """Addresses that the node was told of."""
    command = ["ip", "-n", node.here.name, "-j", "neigh", "show", "nud", "permanent", "dev", "cni0"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return {entry["dst"] for entry in json.loads(done.stdout or "[]") if "protocol" in entry}


def test_between_pods_nothing_is_rewritten_or_tracked_whoever_would(node: Node) -> None:
    a, gateway = node.pod("a", 400, 5), node.workload("gw", 402, 1100)
    stranger = node.wire("x", 66)
    node.open_everything(8080)
    config = Config(home=node.config.home, net=node.config.net, engine="kubernetes")
    pods = [a.v4, a.v6, node.far.v4, node.far.v6]
    masquerade = """
table inet cni {
	chain post { type nat hook postrouting priority srcnat - 5; policy accept; masquerade; }
}
"""
    node.here.inside(lambda: node_rules(config, pods))
    # Written again, as by an agent that starts, it forgets nothing meanwhile.
    node.here.inside(lambda: write(host.rules(config)))
    node.here.inside(lambda: write(masquerade))
    with Ear(node.far.path, 8080) as far_away, Ear(gateway.namespace.path, 8080) as at_gateway:
        for target in (node.far.v4, gateway.v4):
            send_datagram(a.namespace.path, a.v4, target, 8080)
        for target in (node.far.v6, gateway.v6):
            send_datagram(a.namespace.path, a.v6, target, 8080)
        assert far_away.heard() == [a.v4, a.v6] and at_gateway.heard() == [a.v4, a.v6]
        # What isn't between the platform's is the CNI's, as before.
        send_datagram(stranger.path, stranger.v4, node.far.v4, 8080)
        assert far_away.heard() == [f"{WAY4}1"]
    assert not {a.v4, a.v6} & tracked(node.here)


def write(rules: str) -> None:
    subprocess.run(["nft", "-f", "-"], input=rules, text=True, check=True)


def tracked(place: Place) -> set[str]:
    """Addresses that a namespace's connection tracking knows."""
    text = place.inside(lambda: Path("/proc/thread-self/net/nf_conntrack").read_text())
    words = (word.partition("=") for line in text.splitlines() for word in line.split())
    return {str(ipaddress.ip_address(value)) for key, _, value in words if key in ("src", "dst")}
