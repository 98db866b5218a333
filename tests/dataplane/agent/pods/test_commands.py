"""Commands in pods on two real nodes: what the pod's own process may, and no more; by its own node's agent alone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from cells.boundary import Topology, model
from dataplane import addresses
from tests.cluster import LONGEST
from tests.dataplane.agent.pods.plane import PodPlane

pytestmark = [pytest.mark.cluster, pytest.mark.root, pytest.mark.timeout(LONGEST)]
CELL, IDENTITY, REPLICA, INDEX = "cell-7-00c0ffee", 340, "r91", 9041


@pytest.fixture(scope="module")
def plane(pod_plane: PodPlane) -> Iterator[PodPlane]:
    """A replica on the first node."""
    config = pod_plane.config
    replica = model.Replica(REPLICA, *addresses.workload(config, INDEX), True)
    workload = model.Workload(IDENTITY, "web", *addresses.service(config, IDENTITY), replicas=(replica,))
    gateway = addresses.cell_gateway(config, 7)
    cell = model.Cell(7, 1, "acme", "shop", "production", 1100, 400, *gateway, workloads=(workload,))
    north, resolver = (addresses.workload(config, n) for n in (addresses.GATEWAY_NORTH, addresses.RESOLVER))
    topology = Topology(
        (cell,), north4=north.v4, north6=north.v6, resolver4=resolver.v4, resolver6=resolver.v6
    )
    pod_plane.namespace(CELL)
    pod_plane.apply(topology, [pod_plane.endpoint(REPLICA, INDEX, IDENTITY, CELL)])
    container = {
        "name": "app",
        "image": pod_plane.endpoint(REPLICA, INDEX, IDENTITY, CELL)["process"]["image"],
        "command": ["sh", "-c", "sleep 100000"],
        "env": [{"name": "WORD", "value": "hello"}],
    }
    pod_plane.create(CELL, REPLICA, 1, containers=[container])
    pod_plane.await_running(CELL, REPLICA)
    yield pod_plane
    pod_plane.vacate(CELL)
    pod_plane.forget(CELL)


def run(plane: PodPlane, *words: str, node: int = 1, tty: bool = False) -> dict[str, Any]:
    order = {"replica": REPLICA, "words": list(words), "tty": tty}
    return json.loads(plane.agents[node].order(f"enter {json.dumps(order)}"))


@pytest.mark.capability("exec", "kubernetes-shared", "kubernetes-private")
def test_output_errors_and_exit_code_are_told_apart(plane: PodPlane) -> None:
    assert run(plane, "sh", "-c", "echo one; echo two >&2; exit 7") == {
        "code": 7,
        "out": "one\n",
        "err": "two\n",
    }
    said = run(plane, "sh", "-c", "test -t 0 && echo $TERM", tty=True)
    assert (said["code"], said["out"]) == (0, "xterm\r\n")


def test_it_may_what_the_pods_own_process_may(plane: PodPlane) -> None:
    """User, rights, filter of system calls, control groups, namespaces, environment."""
    look = "grep -E '^(Uid|Gid|CapEff|CapBnd|NoNewPrivs|Seccomp):' {0}; cat /proc/{1}/cgroup; readlink /proc/{1}/ns/*"
    own, entered = look.format("/proc/1/status", "1"), look.format("/proc/self/status", "self")
    first, second = run(plane, "sh", "-c", own), run(plane, "sh", "-c", entered)
    assert first == second
    assert "Seccomp:\t2" in second["out"]
    assert "NoNewPrivs:\t1" in second["out"]
    assert "CapBnd:\t0000000000000000" in second["out"]
    assert run(plane, "sh", "-c", "echo $WORD")["out"] == "hello\n"
    assert run(plane, "unshare", "-U", "true")["code"] != 0


def test_what_cant_be_run_is_told_in_a_sentence(plane: PodPlane) -> None:
    assert run(plane, "/nowhere") == {"refused": "There is no such program in the container."}


def test_another_nodes_agent_has_nothing_to_enter(plane: PodPlane) -> None:
    assert run(plane, "true", node=2) == {"refused": "The replica isn't on this node any more."}
