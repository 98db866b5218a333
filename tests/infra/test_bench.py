"""What measurements count, apart from what they measure."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import httpx
import pytest

from dataplane.agent.state import State
from infra.bench import clusters, nodes
from infra.bench.pod_world import EACH, World
from infra.cluster.client import Client
from infra.config import Config


def line(verb: str, path: str, agent: str) -> str:
    """As the API server writes a request down."""
    return f'I1129 10:00:00.0 1 httplog.go:89] "HTTP" verb="{verb}" URI="{path}" latency="1ms" userAgent="{agent}" srcIP="::1" resp=200\n'


@pytest.fixture
def requests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[clusters.Requests]:
    monkeypatch.setattr(clusters, "_SETTLE_SECONDS", 0.0)
    log = tmp_path / "kube-apiserver.log"
    log.write_text(line("GET", "/api/v1/nodes", "Helm/3"))
    counting = clusters.Requests(log, httpx.Client())
    with counting.followed():
        yield counting


def test_requests_are_told_apart_by_who_asks_and_for_what(
    requests: clusters.Requests, tmp_path: Path
) -> None:
    before = requests.here()
    with (tmp_path / "kube-apiserver.log").open("a") as log:
        for path in ("/version", "/api?timeout=32s", "/api/v1?timeout=32s", "/apis/apps/v1", "/openapi/v2"):
            log.write(line("GET", path, "Helm/3.17.3"))
        log.write(line("POST", "/api/v1/namespaces", "Helm/3.17.3"))
        log.write(line("GET", "/apis/apps/v1/namespaces/a/deployments?limit=1", "python-httpx/0.28"))
        log.write(line("PATCH", "/api/v1/nodes/node1/status", "kubelet/v1.20.2"))
        log.write(line("GET", "/readyz", "python-httpx/0.28"))
    assert requests.since(before) == {
        ("helm", "discovery"): 5,
        ("helm", "POST"): 1,
        ("driver", "GET"): 1,
        ("others", "PATCH"): 1,
    }


def test_logs_that_are_begun_anew_are_counted_on(requests: clusters.Requests, tmp_path: Path) -> None:
    before, log = requests.here(), tmp_path / "kube-apiserver.log"

    def seen(many: int) -> bool:
        return requests._found["helm", "GET"] == many

    for turn in range(1, 4):
        half = len(line("GET", "/api/v1/pods", "Helm/3")) // 2
        with log.open("a") as current:
            current.write(line("GET", "/api/v1/pods", "Helm/3")[:half])
            current.flush()
            requests.here()
            current.write(line("GET", "/api/v1/pods", "Helm/3")[half:])
        log.rename(log.with_name(f"{log.name}.1"))
        log.write_text(line("GET", "/api/v1/pods", "Helm/3"))
        # By itself: a third file may be begun before anybody asks.
        clusters.until(partial(seen, 2 * turn), 10, "it isn't followed")
    assert requests.since(before) == {("helm", "GET"): 6}


def test_a_pod_that_comes_for_another_changes_its_cell_alone() -> None:
    config = Config(home=nodes.HOME, net=1, engine="kubernetes")
    world = World(config, Client.__new__(Client), "node1", 3)  # no pods: nobody is asked for anything
    state = State().after(world.beginning()).after(world.grow(2 * EACH))
    before = state.view()["endpoints"]
    answer, place, old, fresh = world.renew(0)
    after = state.after(answer).view()["endpoints"]
    assert (len(before), len(after), len(answer["units"])) == (2 * EACH, 2 * EACH, 1)
    assert {entry["id"] for entry in before} ^ {entry["id"] for entry in after} == {old, fresh}
    assert next(entry["pod"]["namespace"] for entry in after if entry["id"] == fresh) == place
