"""What is said of a run that has no pod, against a real API server: none, while one is being made."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dataplane.drivers import CellState, PlacedCell
from dataplane.drivers.kubernetes import once
from tests.cluster import LONGEST, Cluster, cell

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(LONGEST)]
RUN = "r1"


def with_run() -> PlacedCell:
    process = {
        "image": "cytoplane.dev/nothing:1", "command": ["true"], "environment": {}, "restart": "never",
        "timeout": 60, "stop_grace": 1, "limits": {"memory": 2**25, "cpu": 0.1, "pids": 64},
        "probe": {"type": "none", "port": 0, "path": "/", "interval": 1, "timeout": 1, "grace": 5},
    }  # fmt: skip
    return replace(
        cell(), endpoints=({"id": RUN, "process": process, "labels": {"component": "web", "release": 1}},)
    )


def phases(cluster: Cluster, place: PlacedCell) -> dict[str, str]:
    return {report["id"]: report["phase"] for report in cluster.driver().reports(place, {})}


def test_a_run_whose_pod_may_still_come_isnt_lost(cluster: Cluster) -> None:
    place = with_run()
    assert cluster.driver().ensure(place).state == CellState.READY
    assert phases(cluster, place)[RUN] != "lost"
    with cluster.api() as api:
        api.delete("v1", "Pod", place.location, RUN)
        assert phases(cluster, place) == {RUN: "lost"}
        # The same without a mark, and in the middle of being made.
        once._mark(api, place, RUN, None)
        with once.beginning(api, place):
            assert phases(cluster, place) == {}
        assert phases(cluster, place) == {RUN: "lost"}


def test_who_was_killed_as_it_made_a_runs_pod_leaves_it_lost_and_never_made_again(cluster: Cluster) -> None:
    place = with_run()
    cluster.driver().ensure(place)
    with cluster.api() as api:
        api.delete("v1", "Pod", place.location, RUN)
        once._mark(api, place, RUN, "making")
        assert phases(cluster, place) == {}
        cluster.driver().ensure(place)
        assert phases(cluster, place) == {RUN: "lost"}
        assert api.get("v1", "Pod", place.location, RUN) is None
