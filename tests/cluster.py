"""A real Kubernetes API server for tests, with the controllers that empty namespaces: one a run.

Built from Debian's source the first time on a machine (minutes; the progress is shown), then from the
cache. Import ``cluster`` into a conftest.
"""

from __future__ import annotations

import atexit
import os
import shutil
import subprocess
from collections.abc import Iterator
from functools import cache

import pytest

from dataplane.drivers import CellState, PlacedCell, Quota, location_for
from dataplane.drivers.kubernetes import Kubeconfig, Kubernetes
from dataplane.drivers.kubernetes.api import Api
from infra.kubernetes import apiserver

BINARIES = ("kube-apiserver", "kube-controller-manager")
#: Of a test that may be the first to build, seconds.
LONGEST = 2400


@cache
def _server() -> apiserver.ApiServer:
    server = apiserver.ApiServer().start()
    atexit.register(server.stop)
    return server


@pytest.fixture(scope="session")
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """The API server; skips with the reason where there can't be one."""
    if not all(apiserver.built(name) for name in BINARIES) or shutil.which("etcd") is None:
        if os.geteuid() != 0:
            pytest.skip(
                "a Kubernetes API server has to be built first, and only root can install its compiler"
            )
        capture = request.config.pluginmanager.getplugin("capturemanager")
        try:
            with capture.global_and_fixture_disabled():
                apiserver.build(*BINARIES)
        except subprocess.CalledProcessError as error:
            pytest.skip(
                f"a Kubernetes API server can't be built here (build.sh ended with {error.returncode})"
            )
    yield Cluster(_server())


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


__all__ = ["BINARIES", "LONGEST", "CellState", "Cluster", "cell", "cluster"]
