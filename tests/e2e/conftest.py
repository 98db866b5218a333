"""End-to-end tests use the run's one whole installation."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.capabilities import ENGINES
from tests.cluster import TwoNodes
from tests.dataplane.agent.pods.fixtures import without_agents
from tests.e2e import clusters, engines
from tests.e2e import installation as module
from tests.e2e.attacker import FILES, Attacker
from tests.e2e.engines import Engine

#: Engines of a run, for work on the tests of one.
_WANTED = os.environ.get("CYTOPLANE_E2E_ENGINES", ",".join(ENGINES)).split(",")


@pytest.fixture(scope="session")
def installation(live_installation: module.Installation) -> module.Installation:
    return live_installation


@pytest.fixture(scope="session")
def attacker(installation: module.Installation) -> Attacker:
    """What globex may run in containers of its own: as its user and as root."""
    result = installation.project("globex", "foothold").push(FILES)
    assert result.accepted, result.output
    assert installation.get("foothold.globex").text == "1000"
    assert installation.get("rooted.globex").text == "0"
    return Attacker(installation)


@pytest.fixture(autouse=True)
def healthy_before(installation: module.Installation) -> None:
    """A test begins with every part at work, whatever the one before did to them."""
    installation.wait(installation.healthy, 60)


@pytest.fixture(scope="package", params=[name for name in ENGINES if name in _WANTED])
def engine(
    request: pytest.FixtureRequest,
    installation: module.Installation,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Engine]:
    """One engine after the other; tests of one are together."""
    engines.tenant(installation)
    if request.param == "machine":
        made = Engine(request.param, installation, "staging", engines.door_of_machine(installation))
        yield made
        made.clear()
        return
    nodes: TwoNodes = request.getfixturevalue("two_nodes")
    plane = clusters.ClusterPlane(installation, nodes, request.param, tmp_path_factory.mktemp("plane"))
    capture = request.config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled():
        plane.load_images(clusters.images._say)
    made = Engine(request.param, installation, "production", plane.door, plane)
    with without_agents():
        try:
            if request.param == "kubernetes-private":
                plane.join_private(engines.TENANT)
            else:
                plane.join_shared()
            engines.bind(installation, plane.name)
            yield made
        finally:
            # Other tests use the same nodes.
            made.clear()
            plane.leave()
            engines.bind(installation, engines.MACHINE)
            path = f"/planes/{plane.name}?confirm={plane.name}"
            installation.api("admin").call("DELETE", path, fine=("not-found",))
