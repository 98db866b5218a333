"""One stage for attacks and faults."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.dataplane.agent.pods.plane import PodPlane
from tests.dataplane.agent.pods.trials.stage import Stage


@pytest.fixture(scope="package")
def stage(pod_plane: PodPlane) -> Iterator[Stage]:
    made = Stage(pod_plane)
    made.apply()
    made.create()
    yield made
    made.close()
