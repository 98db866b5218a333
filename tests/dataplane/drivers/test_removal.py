"""Removal goes on from whatever is left, with the rights that are left. No cluster is asked."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from dataplane.drivers.interface import CellState, Denied
from dataplane.drivers.kubernetes import Kubeconfig, Kubernetes
from dataplane.drivers.kubernetes.api import Object
from dataplane.drivers.kubernetes.drift import with_ownership
from dataplane.drivers.kubernetes.records import RELEASES
from tests.cluster import cell

CELL = cell()
KUBECONFIG = Kubeconfig(server="https://cluster.example.com", authority="", token="secret")


class Cluster:
    """What the driver sees: a namespace, and Helm's records of it and of another."""

    def __init__(self) -> None:
        self.records = {
            f"sh.helm.release.v1.{release}.v{n}": release
            for release in (CELL.location, "other")
            for n in (1, 2)
        }
        self.namespace: Object | None = None
        self.helm: list[str] = []

    def make(self, **more: Any) -> None:
        metadata = {"name": CELL.location, "labels": {"cytoplane.dev/cell": str(CELL.number)}, **more}
        self.namespace = with_ownership({"kind": "Namespace", "metadata": metadata}, CELL.location)

    # The API.
    def get(self, version: str, kind: str, namespace: str, name: str) -> Object | None:
        assert (kind, name) == ("Namespace", CELL.location)
        return self.namespace

    def list(self, version: str, kind: str, namespace: str, **selectors: str) -> list[Object]:
        assert (kind, namespace) == ("Secret", RELEASES)
        release = selectors["labelSelector"].partition("name=")[2]
        return [{"metadata": {"name": name}} for name, of in self.records.items() if of == release]

    def delete(self, version: str, kind: str, namespace: str, name: str) -> None:
        if kind == "Namespace":
            self.make(deletionTimestamp="2026-01-01T00:00:00Z")
        else:
            assert namespace == RELEASES
            del self.records[name]

    # Helm.
    def uninstall(self, release: str) -> None:
        self.helm.append(release)
        # The controller's rights in the namespace have gone with it.
        raise Denied("deployments.apps is forbidden")


class Driver(Kubernetes):
    def __init__(self, cluster: Cluster) -> None:
        super().__init__(KUBECONFIG)
        self.cluster = cluster

    @contextmanager
    def _open(self) -> Iterator[tuple[Any, Any]]:
        yield self.cluster, self.cluster


@pytest.fixture
def cluster() -> Cluster:
    return Cluster()


def test_what_a_killed_uninstallation_left_of_its_records_goes_without_helm(cluster: Cluster) -> None:
    assert Driver(cluster).remove(CELL).state == CellState.ABSENT
    assert not cluster.helm
    assert set(cluster.records.values()) == {"other"}
    assert Driver(cluster).remove(CELL).state == CellState.ABSENT


def test_while_the_namespace_goes_nothing_is_asked_of_helm_and_the_records_stay(cluster: Cluster) -> None:
    cluster.make(deletionTimestamp="2026-01-01T00:00:00Z")
    assert Driver(cluster).remove(CELL).state == CellState.REMOVING
    assert not cluster.helm
    assert set(cluster.records.values()) == {"other", CELL.location}
