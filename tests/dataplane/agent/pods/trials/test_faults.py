"""Parts of the cluster and of the plane die while tenants' traffic runs and somebody knocks where nobody may:
nothing forbidden passes, nothing allowed is interrupted; what a dead node had comes back as what it was."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from functools import partial

import pytest

from dataplane import addresses
from dataplane.agent.namespaces import run_in
from dataplane.cni import build, chain
from infra import supervisor
from infra.cluster.enter import holder
from infra.cluster.images import BUSYBOX
from infra.cluster.settings import NODES
from infra.kubernetes import binaries
from tests.cluster import LONGEST, until
from tests.dataplane.agent.agents import Traffic, echoed
from tests.dataplane.agent.pods.node import HOME
from tests.dataplane.agent.pods.trials.stage import CLOSED, REPLICAS, SHOP, TCP, UDP, WEB, Stage

pytestmark = [pytest.mark.cluster, pytest.mark.root, pytest.mark.timeout(LONGEST)]
STREAM, DATAGRAM = socket.SOCK_STREAM, socket.SOCK_DGRAM


def opened(stage: Stage, *replicas: str) -> list[socket.socket]:
    """Connections of acme's client to these, over both families."""

    def connect(address: str) -> socket.socket:
        made = socket.create_connection((address, TCP), 5)
        made.settimeout(3)
        return made

    caller = stage.path("r23")
    return [
        run_in(caller, partial(connect, address))
        for name in replicas
        for address in stage.addresses(name)
    ]  # fmt: skip


def forbidden(stage: Stage, *strangers: str) -> list[tuple[str, str, int, int]]:
    """Ways that nobody opened: from the other tenant, to another port, in the other direction."""
    found: list[tuple[str, str, int, int]] = []
    for name in ("r21", "r22"):
        v4, v6 = stage.addresses(name)
        for stranger in strangers:
            found += [
                (stranger, v4, UDP, DATAGRAM),
                (stranger, v6, UDP, DATAGRAM),
                (stranger, v6, TCP, STREAM),
            ]
        found += [("r23", v4, CLOSED, STREAM)]
    found += [
        ("r21", stage.addresses("r23")[0], UDP, DATAGRAM),
        ("r23", stage.addresses("r24")[1], UDP, DATAGRAM),
    ]
    return found


def works(stage: Stage) -> bool:
    """Whether acme's client gets both replicas by the service, and globex' user by nothing."""
    calls = [("tcp", addresses.service(stage.plane.config, WEB).v4, TCP)] * 12
    calls += [("tcp", a, TCP) for name in ("r21", "r22") for a in stage.addresses(name)]
    return set(stage.plane.asked(1, "r23", *calls)) == {"b"}


def shut(stage: Stage) -> bool:
    calls = [
        (kind, a, port)
        for name in ("r21", "r22", "r24", "r25")
        for a in stage.addresses(name)
        for kind, port in (("tcp", TCP), ("udp", UDP), ("tcp", CLOSED))
    ]
    asked = [stage.plane.asked(stage.node(stranger), stranger, *calls) for stranger in ("r26", "r27")]
    return {answer for answers in asked for answer in answers} == {""}


@contextlib.contextmanager
def undisturbed(stage: Stage) -> Iterator[Traffic]:
    """Nothing passes that mustn't, nothing stops that may go on, while the body is run."""
    connections = opened(stage, "r21", "r22")
    try:
        with Traffic(stage, connections, forbidden(stage, "r26", "r27")) as traffic:
            until(lambda: traffic.asked > 16, 20, "no traffic")
            yield traffic
            before = traffic.asked
            until(lambda: traffic.asked > before + 16, 20, "traffic has stopped")
        assert traffic.passed == []
        assert traffic.silences == []
        assert all(echoed(each) for each in connections)
    finally:
        for each in connections:
            each.close()


def again(stage: Stage, *nodes: int) -> None:
    """Agents of these nodes, killed and started."""
    for node in nodes:
        stage.plane.agents[node].kill()
    for node in nodes:
        stage.plane.agents[node].start()
    for node in nodes:
        stage.plane.agents[node].await_ready()


def killed(stage: Stage, *parts: str) -> None:
    """Killed, and back by the supervisor's work."""
    cluster = stage.plane.cluster
    before = supervisor.pids(cluster)
    for part in parts:
        os.kill(before[part], signal.SIGKILL)

    def back() -> bool:
        states, pids = supervisor.states(cluster), supervisor.pids(cluster)
        return all(states[part] == "RUNNING" and pids[part] != before[part] for part in parts)

    until(back, 60, f"they don't come back: {parts}")


@contextlib.contextmanager
def without(stage: Stage, *parts: str) -> Iterator[None]:
    supervisor.stop(stage.plane.cluster, parts)
    try:
        yield
    finally:
        supervisor.start(stage.plane.cluster, reversed(parts))
        until(partial(answers, stage), 90, "the API doesn't come back")


def answers(stage: Stage) -> bool:
    with contextlib.suppress(Exception), stage.plane.two_nodes.client() as client:
        return client.get("/readyz").status_code == 200
    return False


def agents(stage: Stage) -> None:
    again(stage, *NODES)


def nodes(stage: Stage) -> None:
    killed(stage, *(f"node{node}-{part}" for node in NODES for part in ("kubelet", "containerd")))


def control(stage: Stage) -> None:
    killed(stage, "etcd", "kube-controller-manager", "kube-scheduler")
    until(partial(answers, stage), 90, "the API doesn't come back")


def api_and_then_agents(stage: Stage) -> None:
    """The longest that a node can be alone: nobody above it, and it begins from its disk."""
    with without(stage, "kube-apiserver", "etcd"):
        again(stage, *NODES)
        assert works(stage)
        assert shut(stage)


@pytest.mark.parametrize(
    "fault",
    [agents, nodes, control, api_and_then_agents],
    ids=lambda fault: fault.__name__,
)
def test_while_it_dies_and_comes_back_nobody_notices(stage: Stage, fault: Callable[[Stage], None]) -> None:
    with undisturbed(stage):
        fault(stage)
        until(partial(works, stage), 30, "what may be called isn't")
    assert shut(stage)


def test_what_is_taken_back_while_the_api_is_away_ends_on_both_nodes(stage: Stage) -> None:
    """Desired state comes past the cluster: a node needs no API server to enforce it."""
    connections = opened(stage, "r21", "r22")
    try:
        with without(stage, "kube-apiserver"):
            stage.apply(connected=False)
            until(lambda: not any(echoed(each) for each in connections), 10, "they go on")
            assert not works(stage)
            stage.apply()
            until(partial(works, stage), 20, "it doesn't come back")
    finally:
        for each in connections:
            each.close()
    assert shut(stage)


#: Knocks from its first instruction on, and says so if anybody answers.
KNOCKING = "while true; do for a in {targets}; do nc -w 1 $a {port} </dev/null && echo reached $a; done; sleep 0.1; done"


@pytest.mark.parametrize("moment", ["asked for", "attested", "published"])
def test_an_agent_that_dies_while_a_pod_starts_leaves_it_shut_or_right(stage: Stage, moment: str) -> None:
    """At each step of its way the pod has either no network or its own identity."""
    plane, agent = stage.plane, stage.plane.agents[2]
    plane.delete(SHOP, "r25")
    # Its kubelet takes the network down after the pod is no more, and may just have come back.
    until(
        lambda: "r25" not in agent.pods(), 90, lambda: f"its agent doesn't hear of it: {agent.pods()['r25']}"
    )
    victims = [stage.addresses(name)[0] for name in ("r21", "r22")]
    script = KNOCKING.format(targets=" ".join(victims), port=TCP)
    container = {"name": "app", "image": BUSYBOX, "command": ["sh", "-c", script]}
    steps: dict[str, Callable[[], bool]] = {
        "asked for": lambda: any("r25" in str(pod) for pod in plane.two_nodes.pods(SHOP)),
        "attested": lambda: "r25" in agent.pods(),
        "published": lambda: "r25" in plane.said()["node2"]["pods"],
    }
    with undisturbed(stage):
        plane.create(SHOP, "r25", 2, containers=[container])
        end = time.monotonic() + 60
        while not steps[moment]():
            assert time.monotonic() < end, f"it is never {moment}"
            time.sleep(0.005)
        agent.kill()
        time.sleep(1)
        agent.start()
        agent.await_ready()
        stage.await_running("r25")
    stage.serve("r25")
    # It knocked all the while.
    time.sleep(2)
    assert "reached" not in plane.two_nodes.log(SHOP, "r25")
    assert plane.said()["node2"]["pods"]["r25"]["v4"] == stage.addresses("r25")[0]


def tasks(stage: Stage, node: int) -> set[str]:
    """What runs of acme's pods, by the runtime's word."""

    def listed(*words: str) -> set[str]:
        done = stage.plane.two_nodes.ran(f"node{node}", "ctr", "--namespace", "k8s.io", *words)
        assert done.returncode == 0, done.stderr
        return set(done.stdout.split())

    ours = f'labels."io.kubernetes.pod.namespace"=={SHOP}'
    return listed("tasks", "list", "-q") & listed("containers", "list", "-q", ours)


def test_a_node_that_goes_takes_its_own_pods_alone_and_brings_them_back_as_what_they_were(
    stage: Stage,
) -> None:
    """All that runs on a node ends at once, its memory is gone, its disk isn't."""
    plane, cluster, agent = stage.plane, stage.plane.cluster, stage.plane.agents[2]
    own = [name for name in REPLICAS if stage.node(name) == 2]
    before = {name: agent.pods()[name]["netns"] for name in own}
    assert tasks(stage, 2) != set()
    here = opened(stage, "r21")
    # What the keeper of the chain wrote is on a node's disk; these nodes read it from there at each start.
    disk = cluster.node_home(2) / "etc/cni/net.d"
    chain.install(disk, HOME / "run/cni.sock")
    try:
        # Addresses of the dead, too: this CNI gives them to others, and nobody is to get through under them.
        with Traffic(stage, here, forbidden(stage, "r26")) as traffic:
            until(lambda: traffic.asked > 8, 20, "no traffic")
            # The tests' own sockets would keep its pods' namespaces alive.
            stage.deaf(2)
            first = holder(cluster, "node2")
            os.kill(first, signal.SIGKILL)
            agent.kill()
            until(lambda: holder(cluster, "node2") not in (0, first), 60, "the node doesn't come back")
            build.put(build.build(binaries.cache().parent), plane.inside(2, "/opt/cni/bin"))
            time.sleep(4)  # Pods are tried meanwhile, without an agent: they wait.
            assert tasks(stage, 2) == set()
            agent.start()
            agent.await_ready()

            def anew() -> bool:
                known = agent.pods()
                return all(
                    known.get(name, {}).get("netns") not in (None, path) for name, path in before.items()
                )

            until(anew, 180, lambda: f"its pods aren't attested anew: {agent.pods()} {agent.said()}")
            stage.await_running(*own)
            asked = traffic.asked
            until(lambda: traffic.asked > asked + 8, 20, "traffic has stopped")
        assert traffic.passed == []
        assert traffic.silences == [], "the other node's pods were disturbed"
    finally:
        chain.remove(disk)
        for each in here:
            each.close()
    stage.serve(*own)
    until(partial(works, stage), 60, "what may be called isn't")
    assert shut(stage)
