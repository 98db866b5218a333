"""The lease of controllers: one holds it, nobody begins anything that could overlap."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from dataplane.controller import lease as leases
from dataplane.controller.lease import NAME, VERSION, Lease
from dataplane.drivers.kubernetes.budget import CALL
from tests.cluster import LONGEST, Cluster, cluster, until  # noqa: F401  a fixture

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(LONGEST)]
NAMESPACE = "leases"


@pytest.fixture
def api(cluster: Cluster) -> Iterator[Cluster]:
    with cluster.api() as client:
        client.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
        client.delete(VERSION, "Lease", NAMESPACE, NAME)
    yield cluster


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "DURATION", 5.0)
    monkeypatch.setattr(leases, "FRESH", 4.0)


def test_who_was_first_has_it_as_long_as_it_renews(api: Cluster, short: None) -> None:
    one, two = Lease(api.api, NAMESPACE, "one"), Lease(api.api, NAMESPACE, "two")
    assert one.try_once()
    assert one.held
    end = time.monotonic() + 6.0
    while time.monotonic() < end:
        assert one.try_once()
        assert not two.try_once()
        assert not two.held
        time.sleep(0.1)


def test_the_others_wait_for_its_whole_length_after_the_last_sign(api: Cluster, short: None) -> None:
    one, two = Lease(api.api, NAMESPACE, "one"), Lease(api.api, NAMESPACE, "two")
    one.try_once()
    begun = time.monotonic()
    until(two.try_once, 20, "nobody takes over")
    assert time.monotonic() - begun >= 5.0 - 0.05
    assert not one.held, "it stopped beginning things long before"
    assert not one.try_once(), "and finds that it has lost it"


def test_one_that_ends_well_lets_another_begin_at_once(api: Cluster) -> None:
    one, two = Lease(api.api, NAMESPACE, "one"), Lease(api.api, NAMESPACE, "two")
    one.try_once()
    assert not two.try_once()
    one.release()
    assert not one.held
    assert two.try_once()


def test_the_same_pod_after_a_restart_goes_on_at_once(api: Cluster) -> None:
    assert Lease(api.api, NAMESPACE, "one").try_once()
    assert Lease(api.api, NAMESPACE, "one").try_once()


def test_a_call_that_begins_under_it_ends_before_anybody_else_may_begin() -> None:
    assert leases.FRESH + CALL < leases.DURATION
    assert leases.RENEW * 2 < leases.FRESH, "a renewal may fail without anything standing still"
