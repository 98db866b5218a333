"""What a node's agent takes with 0, 50 and 200 pods of cells on its node: idle, and while pods come and go.

On a development cluster of its own: real agents, gateways and resolvers, the CNI plugin in the chain, pods
that sleep. There is no control plane: desired state is handed to the agents unit by unit as its answers,
and what they would report is written out and dropped. ``CYTOPLANE_BENCH_PODS``: numbers of pods, with
commas; ``CYTOPLANE_BENCH_SECONDS``: how long each is looked at.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from typing import Any

from infra import supervisor
from infra.bench import clusters, nodes
from infra.bench.pod_world import EACH, World
from infra.bench.report import show
from infra.cluster.client import Client
from infra.cluster.settings import load
from infra.config import Config

SIZES = tuple(map(int, os.environ.get("CYTOPLANE_BENCH_PODS", "0,50,200").split(",")))
#: What comes after each step until it is quiet: kubelet and runtime have their own work then.
_SETTLE_SECONDS = 15.0


def run() -> None:
    cluster = load()
    if supervisor.states(cluster):
        raise SystemExit(
            f"A cluster runs in {cluster.home}, and agents leave something on its nodes. End it with "
            "`make cluster-down`, or name another CYTOPLANE_CLUSTER_HOME and CYTOPLANE_CLUSTER_NET."
        )
    seconds = clusters.number("SECONDS", 60)
    config = Config(home=nodes.HOME, net=cluster.number, engine="kubernetes")
    with clusters.running(cluster), Client(cluster, seconds=60) as client:
        agents = nodes.start(cluster, client, config)
        try:
            world = World(config, client, agents[0].name, -(-max(SIZES) // EACH))
            _give(agents, world.beginning())
            rows = [_measured(agents, world, size, seconds) for size in SIZES]
        finally:
            nodes.stop(agents)
    note = (
        f"Processor time in s for each minute, over {seconds} s; memory is the proportional set size. "
        "The other node has no pods and hears of all of them."
    )
    show("pods_kube", rows, note)


def _give(agents: list[nodes.Node], answer: dict[str, Any]) -> None:
    for agent in agents:
        agent.give(answer)


def _measured(agents: list[nodes.Node], world: World, size: int, seconds: float) -> dict[str, Any]:
    before, began = agents[0].processor(), time.monotonic()
    _give(agents, world.grow(size))
    world.create_missing()
    world.await_all()
    taken, pods = agents[0].processor() - before, EACH * len(world.running)
    say(f"{pods} pods run after {time.monotonic() - began:.0f} s")
    time.sleep(_SETTLE_SECONDS)
    idle = _spent(agents, lambda: time.sleep(seconds))
    row: dict[str, Any] = {
        "pods": pods,
        "idle": idle[0],
        "MiB": agents[0].memory(),
        "other node, idle": idle[1],
        "other node, MiB": agents[1].memory(),
        "came and went": "",
        "meanwhile": "",
        "other node, meanwhile": "",
        "MiB then": "",
    }
    say(f"idle: {idle[0]:.2f} s of processor time a minute, {row['MiB']:.0f} MiB; {taken:.2f} s for starts")
    if pods:
        came: list[str] = []
        changing = _spent(agents, lambda: came.extend(_come_and_go(agents, world, seconds)))
        row |= {"meanwhile": changing[0], "other node, meanwhile": changing[1], "came and went": len(came)}
        row["MiB then"] = agents[0].memory()
        world.await_all()
    return row


def _spent(agents: list[nodes.Node], work: Callable[[], object]) -> list[float]:
    """Seconds of processor time of each agent for each minute of ``work``."""
    before, begun = [agent.processor() for agent in agents], time.monotonic()
    work()
    minutes = (time.monotonic() - begun) / 60
    return [(agent.processor() - at) / minutes for agent, at in zip(agents, before, strict=True)]


def _come_and_go(agents: list[nodes.Node], world: World, seconds: float) -> set[str]:
    """Each second one pod takes another's place; those that were seen running."""
    begun = time.monotonic()
    made: set[str] = set()
    ran: set[str] = set()
    turn = 0
    while (now := time.monotonic() - begun) < seconds:
        if now < turn:
            time.sleep(turn - now)
        answer, place, old, fresh = world.renew(turn)
        _give(agents, answer)
        world.create(place, fresh)
        world.delete(place, old)
        made.add(fresh)
        ran |= made & world.ready()
        turn += 1
    return ran


def say(text: str) -> None:
    print(f"-----> {text}", file=sys.stderr, flush=True)
