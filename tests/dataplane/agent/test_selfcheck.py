"""The self-check of a pod against the real resolver, agent and programs: what it finds is the pod's own filter."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from bpf import attach
from dataplane import addresses
from dataplane.agent.namespaces import run_in
from dataplane.agent.node import _HOUSEKEEPING
from dataplane.check import CLOSED
from infra.config import Config
from tests.dataplane.agent.outside import WORKLOADS, Outside, outside
from tests.dataplane.check.program import program

__all__ = ["program"]
pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def node(kernel: Config) -> Iterator[Outside]:
    with outside(kernel) as made:
        yield made


def checked(node: Outside, program: Path, workload: str = "web", family: int = 0) -> tuple[int, str]:
    resolver = addresses.workload(node.config, addresses.RESOLVER)[family]
    command = ["nsenter", f"--net={node.path(workload)}", "--", str(program), resolver, "8"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    return done.returncode, done.stdout.strip()


@pytest.mark.parametrize("family", [0, 1])
def test_a_workload_with_both_filters_passes_and_what_it_tried_is_nobodys_concern(
    node: Outside, program: Path, family: int
) -> None:
    node.kernel.flows()
    assert checked(node, program, family=family) == (0, "The boundary is there in both directions.")
    # The node's own discovery of neighbours goes on meanwhile; agents don't report that.
    told = [flow for flow in node.kernel.flows() if flow.reason not in _HOUSEKEEPING]
    refused = [flow for flow in told if not flow.allowed]
    inwards = [flow for flow in refused if flow.source == addresses.IDENTITY_NODE]
    assert inwards and all(node.names.tried(flow) for flow in inwards)
    assert {flow.port for flow in refused if flow not in inwards} <= {CLOSED}
    # Something else that the node sends there is told.
    assert not any(node.names.tried(replace(flow, port=flow.port ^ 1)) for flow in inwards)


def test_a_workload_without_its_own_filter_of_what_comes_in_is_found(node: Outside, program: Path) -> None:
    index = WORKLOADS["web"][1]
    link = f"{node.config.name}v{index}"
    subprocess.run(["tc", "filter", "del", "dev", link, "egress"], check=True, capture_output=True)
    try:
        code, said = checked(node, program)
        assert code == 1 and said.startswith("The boundary is open inwards")
    finally:
        attach.attach(node.config, socket.if_nametoindex(link))
    assert checked(node, program)[0] == 0


@pytest.mark.parametrize(
    "where", ["127.0.0.1", "198.51.100.1", "the resolver", "web's cell's gateway", "nobody"]
)
def test_the_resolvers_word_has_the_node_send_nothing_to_anybody_else(node: Outside, where: str) -> None:
    places = {
        "the resolver": addresses.workload(node.config, addresses.RESOLVER).v4,
        "web's cell's gateway": addresses.cell_gateway(node.config, 1).v4,
        "nobody": addresses.workload(node.config, 9999).v4,
    }
    assert node.names._lessons._of({"uninvited": [places.get(where, where), 4000]}) == {"sent": False}


def test_a_workload_is_sent_one_datagram_and_only_to_a_port(node: Outside) -> None:
    address = addresses.workload(node.config, WORKLOADS["web"][1]).v4
    for port in (0, 65536, -1):
        assert node.names._lessons._of({"uninvited": [address, port]}) == {"sent": False}
    with run_in(node.path("web"), lambda: socket.create_server((address, 0))):
        assert node.names._lessons._of({"uninvited": [address, 4000]}) == {"sent": True}
