"""Cells on the development cluster: made, deployed, looked at, taken away, one at a time against eight.

By the driver that workers use, with Helm. The cluster is plain: nothing isolates its pods, so what the
node agent costs isn't in it (``pods_kube``). ``CYTOPLANE_BENCH_CELLS`` cells, 100 by default.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from dataplane.drivers import CellState, PlacedCell, Quota, location_for
from dataplane.drivers.kubernetes import Kubeconfig, Kubernetes
from infra.bench import clusters
from infra.bench.clusters import until
from infra.bench.report import show
from infra.cluster.client import Client
from infra.cluster.images import BUSYBOX
from infra.cluster.settings import load

#: As many at a time. A worker of the platform has as many threads as the installation says.
WORKERS = (1, 8)
#: Cells of a measurement have numbers that no installation gets to.
_FIRST = 2**30
_PATIENCE = 900.0


def run() -> None:
    cluster, many = load(), clusters.number("CELLS", 100)
    with clusters.running(cluster), Client(cluster, seconds=60) as client:
        driver = Kubernetes(Kubeconfig.parse(cluster.kubeconfig.read_text()))
        requests = clusters.Requests(cluster.logs / "kube-apiserver.log", client)
        _remove(client, driver)
        rows = []
        try:
            with requests.counted():
                # Helm's executable and the server's caches are warm for both.
                _Pass(driver, client, requests, 1, 2).rows()
                for workers in WORKERS:
                    rows += _Pass(driver, client, requests, workers, many).rows()
        finally:
            _remove(client, driver)
    note = (
        f"{many} cells; s for all of them, ms the median of each. Requests are for each cell: Helm's, of which "
        "discovery, and the driver's own."
    )
    show("cells_kube", rows, note)


class _Pass:
    """All steps with so many cells at a time."""

    def __init__(
        self, driver: Kubernetes, client: Client, requests: clusters.Requests, workers: int, many: int
    ) -> None:
        self._driver, self._client, self._requests = driver, client, requests
        self._workers = workers
        self._bare = [_cell(_FIRST + number) for number in range(many)]
        self._whole = [replace(cell, endpoints=(_replica(cell.number),)) for cell in self._bare]

    def rows(self) -> list[dict[str, Any]]:
        return list(self._steps())

    def _steps(self) -> Iterator[dict[str, Any]]:
        yield self._step("project made", self._bare, self._driver.ensure, CellState.READY)
        first = time.monotonic()
        yield self._step("first deployment", self._whole, self._driver.ensure, CellState.READY)
        until(lambda: _running(self._client) >= len(self._whole), _PATIENCE, "not all replicas run")
        yield self._row("until all replicas run", [], time.monotonic() - first)
        yield self._step("again, nothing to change", self._whole, self._driver.ensure, CellState.READY)
        yield self._step("looked at", self._whole, self._driver.status, CellState.READY)
        begun = time.monotonic()
        yield self._step("removed", self._whole, self._driver.remove, CellState.REMOVING, CellState.ABSENT)
        until(lambda: not _places(self._client), _PATIENCE, "namespaces are still there")
        yield self._row("until nothing is left", [], time.monotonic() - begun)

    def _step(
        self, name: str, cells: list[PlacedCell], call: Callable[[PlacedCell], Any], *fine: CellState
    ) -> dict[str, Any]:
        def timed(cell: PlacedCell) -> float:
            begun = time.monotonic()
            status = call(cell)
            if status.state not in fine:
                raise SystemExit(f"{name}: {cell.location} is {status.state}: {' '.join(status.problems)}")
            return time.monotonic() - begun

        before, begun = self._requests.here(), time.monotonic()
        with ThreadPoolExecutor(self._workers) as pool:
            times = list(pool.map(timed, cells))
        taken = time.monotonic() - begun
        return self._row(name, times, taken, before)

    def _row(
        self, name: str, times: list[float], taken: float, before: Counter[tuple[str, str]] | None = None
    ) -> dict[str, Any]:
        asked = {} if before is None else self._requests.since(before)
        many = len(self._bare)

        def each(who: str, verb: str = "") -> float:
            return sum(n for (by, how), n in asked.items() if by == who and verb in ("", how)) / many

        row = {
            "workers": self._workers,
            "step": name,
            "s": taken,
            "ms": 1000 * statistics.median(times) if times else "",
            "Helm": "" if before is None else each("helm"),
            "discovery": "" if before is None else each("helm", "discovery"),
            "driver": "" if before is None else each("driver"),
            "by verb": _verbs(asked, many),
        }
        print(f"-----> {self._workers} at a time: {name}, {taken:.1f} s", file=sys.stderr, flush=True)
        return row


def _verbs(asked: Any, many: int) -> str:
    found: dict[str, int] = {}
    for (who, verb), count in asked.items():
        if who != "others":
            found[verb] = found.get(verb, 0) + count
    return " ".join(f"{verb} {count / many:.1f}" for verb, count in sorted(found.items()))


def _cell(number: int) -> PlacedCell:
    return PlacedCell(number, location_for(number), "bench", "bench", "production", Quota(8, 4000, 2048))


def _replica(number: int) -> dict[str, Any]:
    """An entry of desired state, as for a worker that sleeps."""
    return {
        "id": f"r{number}",
        "process": {
            "image": BUSYBOX,
            "command": ["sleep", "1000000"],
            "environment": {"PORT": "8080", "COMPONENT": "worker"},
            "limits": {"memory": 16 * 2**20, "cpu": 0.1, "pids": 64},
            "stop_grace": 1,
            "probe": {"type": "none", "port": 0, "path": "/", "interval": 1, "timeout": 1, "grace": 30},
        },
        "labels": {"component": "worker", "release": 1},
    }


def _places(client: Client) -> list[str]:
    """Namespaces of a measurement's cells."""
    found = client.document("/api/v1/namespaces", labelSelector="cytoplane.dev/tenant=bench")["items"]
    return [item["metadata"]["name"] for item in found]


def _running(client: Client) -> int:
    found = client.document("/apis/apps/v1/deployments", labelSelector="cytoplane.dev/tenant=bench")["items"]
    return sum(item["status"].get("availableReplicas") == 1 for item in found)


def _remove(client: Client, driver: Kubernetes) -> None:
    """What a measurement left, this one or one that was killed."""
    for place in _places(client):
        driver.remove(replace(_cell(int(place.split("-")[1])), location=place))
    until(lambda: not _places(client), _PATIENCE, "namespaces are still there")
