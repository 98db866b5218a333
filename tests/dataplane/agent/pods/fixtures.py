"""The plane of pods of a run, the nodes without it, and pods that start without its word."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from dataplane.cni import chain
from infra.cluster.enter import holder
from infra.cluster.settings import NODES
from tests.cluster import TwoNodes
from tests.dataplane.agent.pods.node import HOME
from tests.dataplane.agent.pods.plane import PodPlane

#: Planes of this run whose agents are at work.
_RUNNING: list[PodPlane] = []


@pytest.fixture(scope="session")
def pod_plane(two_nodes: TwoNodes) -> Iterator[PodPlane]:
    """The plane, for all tests of a run; each module has cells of its own and takes its pods away."""
    plane = PodPlane(two_nodes)
    try:
        plane.start()
        _RUNNING.append(plane)
        yield plane
    finally:
        _RUNNING.clear()
        plane.stop()


@contextlib.contextmanager
def without_agents() -> Iterator[None]:
    """No agents at work on the nodes, which would be a second data plane beside one that is installed."""
    stopped = list(_RUNNING)
    for plane in stopped:
        plane.stop()
    yield
    for plane in stopped:
        plane.start()


@pytest.fixture(scope="module")
def bare_nodes(two_nodes: TwoNodes) -> Iterator[TwoNodes]:
    """The nodes without agents of ``pod_plane``."""
    with without_agents():
        yield two_nodes


@pytest.fixture
def unchained(two_nodes: TwoNodes) -> Iterator[None]:
    """Pods of cells start without an agent's word, also where a plane of this run has its agents."""
    folders = [Path(f"/proc/{holder(two_nodes.cluster, f'node{node}')}/root/etc/cni/net.d") for node in NODES]
    removed = [folder for folder in folders if chain.remove(folder)]
    time.sleep(1 if removed else 0)  # The runtime reads its folder again when that changes.
    yield
    for folder in removed:
        chain.install(folder, HOME / "run/cni.sock")
    time.sleep(1 if removed else 0)
