"""Real Kubernetes for tests: ``cluster`` is an API server with the controllers that empty namespaces,
``two_nodes`` a whole cluster whose pods run. One of each a run, made when a test first asks for it.

Built from Debian's source the first time on a machine (minutes; the progress is shown), then from the
cache. Import the fixture into a conftest.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from dataplane.drivers import CellState, PlacedCell, Quota, location_for
from dataplane.drivers.kubernetes import Kubeconfig, Kubernetes
from dataplane.drivers.kubernetes.api import Api
from infra.cluster import control, settings
from infra.cluster.client import Client
from infra.cluster.images import BUSYBOX, cluster_environment
from infra.kubernetes import apiserver, binaries

BINARIES = ("kube-apiserver", "kube-controller-manager")
#: Of a test that may be the first to build, seconds.
LONGEST = 2400


@cache
def _server() -> apiserver.ApiServer:
    server = apiserver.ApiServer().start()
    atexit.register(server.stop)
    return server


def _build(request: pytest.FixtureRequest, what: str, *names: str) -> None:
    """Build what is missing; skips with the reason where that can't be."""
    if os.geteuid() != 0:
        pytest.skip(f"{what} has to be built first, and only root can install its compiler")
    capture = request.config.pluginmanager.getplugin("capturemanager")
    try:
        with capture.global_and_fixture_disabled():
            binaries.build(*names)
    except subprocess.CalledProcessError as error:
        pytest.skip(f"{what} can't be built here (build.sh ended with {error.returncode})")


@pytest.fixture(scope="session")
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """The API server; skips with the reason where there can't be one."""
    if not all(binaries.built(name) for name in BINARIES) or shutil.which("etcd") is None:
        _build(request, "a Kubernetes API server", *BINARIES)
    yield Cluster(_server())


@pytest.fixture(scope="session")
def two_nodes(request: pytest.FixtureRequest) -> Iterator[TwoNodes]:
    """A cluster with two nodes, of this run alone, with the CNI of ``CYTOPLANE_TEST_CNI``; skips with the reason where there can't be one."""
    if os.geteuid() != 0:
        pytest.skip("a Kubernetes cluster needs root")
    if control.missing():
        _build(request, "a Kubernetes cluster", "cluster")
    with run_cluster() as whole:
        yield whole


def cluster_settings() -> settings.Cluster:
    """Of the run's cluster, under the tests' number."""
    number = int(os.environ.get("CYTOPLANE_TEST_NET", "11"))
    home, cni = Path(f"/var/tmp/cytoplane-cluster-test-{number}"), os.environ.get("CYTOPLANE_TEST_CNI", "ptp")
    return settings.Cluster(home, number, cni, binaries.cache().parent)


@contextlib.contextmanager
def run_cluster() -> Iterator[TwoNodes]:
    """A cluster under the tests' number for a while."""
    whole = TwoNodes(cluster_settings())
    # What an earlier run left, whatever ended it.
    whole.stop()
    try:
        whole.start()
        yield whole
    finally:
        whole.stop()


class Cluster:
    """The server with what tests ask of it."""

    def __init__(self, server: apiserver.ApiServer) -> None:
        self.server = server
        self.text = server.kubeconfig()

    @property
    def kubeconfig(self) -> Kubeconfig:
        return Kubeconfig.parse(self.text)

    def driver(self) -> Kubernetes:
        return Kubernetes(self.kubeconfig)

    def api(self) -> Api:
        return Api(self.kubeconfig)

    def objects(self, kind: str, namespace: str, version: str = "v1") -> dict[str, dict]:
        """Objects of a kind by their names."""
        with self.api() as api:
            return {item["metadata"]["name"]: item for item in api.list(version, kind, namespace)}

    def namespace(self, name: str) -> dict | None:
        with self.api() as api:
            return api.get("v1", "Namespace", "", name)


class TwoNodes:
    """A whole cluster with what tests ask of it."""

    def __init__(self, cluster: settings.Cluster) -> None:
        self.cluster = cluster

    def start(self, *, kube_proxy: bool = False) -> None:
        control.up(self.cluster, lambda _: None, kube_proxy=kube_proxy)

    def stop(self) -> None:
        control.down(self.cluster, lambda _: None)

    @property
    def text(self) -> str:
        """The administrator's kubeconfig."""
        return self.cluster.kubeconfig.read_text()

    @property
    def kubeconfig(self) -> Kubeconfig:
        return Kubeconfig.parse(self.text)

    def client(self) -> Client:
        return Client(self.cluster)

    def ran(self, place: str, *command: str) -> subprocess.CompletedProcess[str]:
        """A command in ``control``, ``node1`` or ``node2``, with what it said."""
        enter = [sys.executable, "-m", "infra.cluster.enter", place, "--", *command]
        return subprocess.run(
            enter,
            env=cluster_environment(self.cluster),
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    @contextlib.contextmanager
    def namespace(self) -> Iterator[str]:
        """A namespace of a test's own, in which pods can be made; it is taken away, not waited for."""
        name = f"test-{secrets.token_hex(4)}"
        with self.client() as client:
            document = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
            client.create("/api/v1/namespaces", document)
            account = f"/api/v1/namespaces/{name}/serviceaccounts/default"
            until(lambda: client.get(account).json().get("secrets"), 30, "the namespace has no account")
            yield name
            client.remove(f"/api/v1/namespaces/{name}")

    def pods(self, namespace: str, selector: str = "") -> dict[str, dict[str, Any]]:
        """Pods by their names."""
        with self.client() as client:
            found = client.document(f"/api/v1/namespaces/{namespace}/pods", labelSelector=selector)
        return {item["metadata"]["name"]: item for item in found["items"]}

    def create_pod(self, namespace: str, name: str, script: str, node: str = "") -> None:
        """A pod of the busybox image, once; it isn't restarted."""
        container = {"name": name, "image": BUSYBOX, "command": ["sh", "-c", script]}
        spec: dict[str, Any] = {"containers": [container], "restartPolicy": "Never"}
        spec |= {"terminationGracePeriodSeconds": 0, "automountServiceAccountToken": False}
        if node:
            spec["nodeName"] = node
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}
        with self.client() as client:
            client.create(f"/api/v1/namespaces/{namespace}/pods", pod)

    def log(self, namespace: str, pod: str) -> str:
        with self.client() as client:
            return client.get(f"/api/v1/namespaces/{namespace}/pods/{pod}/log").text


def until(ready: Callable[[], Any], seconds: float, complaint: str | Callable[[], str]) -> Any:
    """Wait for what ``ready`` returns. A complaint that is called tells how it is at the end."""
    end = time.monotonic() + seconds
    while not (found := ready()):
        assert time.monotonic() < end, complaint if isinstance(complaint, str) else complaint()
        time.sleep(0.2)
    return found


def cell(number: int = 7, quota: Quota | None = None, location: str = "") -> PlacedCell:
    """A cell that has no place yet."""
    return PlacedCell(
        number,
        location or location_for(number),
        "acme",
        "shop",
        "production",
        quota or Quota(80, 32000, 32768),
    )


__all__ = ["BINARIES", "LONGEST", "CellState", "Cluster", "TwoNodes", "cell", "cluster", "two_nodes", "until"]
