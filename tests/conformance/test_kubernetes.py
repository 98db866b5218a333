"""The boundary on two nodes of a cluster, against the oracle: same-node and cross-node pairs."""

from __future__ import annotations

import pytest

from cells.boundary import compile_topology
from tests.cluster import LONGEST
from tests.conformance.direct import topology
from tests.conformance.engine_kubernetes import KubernetesSite
from tests.conformance.judging import chosen, judge
from tests.conformance.probes import CONTAINER
from tests.conformance.world import generate
from tests.dataplane.agent.pods.plane import PodPlane

pytestmark = [pytest.mark.cluster, pytest.mark.root, pytest.mark.timeout(LONGEST)]


def test_every_probe_gets_the_answer_that_the_oracle_expects(pod_plane: PodPlane) -> None:
    site = KubernetesSite(pod_plane)
    # Smaller than a machine's world: each replica is a pod that kubelet starts.
    world = generate(4, components=2)
    compiled_from = topology(world, site.config)
    engine = site.engine(world, compiled_from, compile_topology(compiled_from))
    try:
        probes = chosen(world)
        # Both nodes are asked by each other.
        beyond = {
            (engine.node_of(probe.caller), engine.node_of(probe.copy))
            for probe in probes
            if probe.way == CONTAINER and probe.caller > 0
        }
        assert len(beyond) == 4
        result = judge(world, compiled_from, site.config, engine, probes)
    finally:
        engine.close()
    print(f"{result.probes} probes, {len(result.wrong)} wrong")
    assert result.wrong == []
    assert result.probes >= 4_000
