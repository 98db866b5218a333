"""Limits, balancing, ping and translation as cytoplane.yaml declares them."""

from __future__ import annotations

import json

import pytest

from cells.specification import Component, Limits, Specification, SpecificationError, parse, validate


def component(declared: str) -> Component:
    text = f"components: {{web: {declared}}}"
    return parse({"cytoplane.yaml": text}, project="shop", detected={".": "dockerfile"}).components["web"]


def refused(declared: str) -> SpecificationError:
    with pytest.raises(SpecificationError) as error:
        component(declared)
    return error.value


@pytest.mark.parametrize(
    ("written", "bits"),
    [
        ("10M", 10**7), ("10Mbit", 10**7), ("10Mbit/s", 10**7), ("2.5G", 25 * 10**8), ("1500k", 1_500_000),
        ("1000000", 10**6), ("100G", 10**11),
    ],
)  # fmt: skip
def test_bandwidth_is_in_bits_per_second(written: str, bits: int) -> None:
    assert component(f"{{limits: {{bandwidth_in: {written}}}}}").limits == Limits(bandwidth_in=bits)
    assert component(f"{{limits: {{bandwidth_out: {written}}}}}").limits == Limits(bandwidth_out=bits)


@pytest.mark.parametrize(
    "written", ["10MB", "10MiB", "fast", "999k", "0", "101G", "-1M", "true", "[10M]", "1e9G", "10 M/h"]
)
def test_what_is_no_bandwidth_is_refused_with_what_to_write(written: str) -> None:
    error = refused(f"{{limits: {{bandwidth_out: {written}}}}}")
    assert error.where.endswith("components.web.limits.bandwidth_out")
    assert "10M" in error.hint


def test_connections_are_counted_in_whole_numbers_that_lock_nobody_out() -> None:
    found = component("{limits: {connections_per_second: 5, connections: 10}}").limits
    assert (found.connections_per_second, found.connections) == (5, 10)
    for declared in (
        "connections_per_second: 4", "connections: 9", "connections: 10.5", "connections: true",
        "connections: 1000001", "connections_per_second: '50'",
    ):  # fmt: skip
        assert declared.partition(":")[0] in refused(f"{{limits: {{{declared}}}}}").where


def test_nothing_declared_is_no_limit_of_its_own() -> None:
    assert component("{}").limits == Limits(256, 0.5, 0, 0, 0, 0)


@pytest.mark.parametrize(
    ("written", "seconds"), [("10m", 600), ("30s", 30), ("24h", 86400), ("45", 45), ("0", 0)]
)
def test_clients_may_stay_with_their_replica(written: str, seconds: int) -> None:
    found = component(f"{{endpoints: {{http: {{balance: consistent, affinity: {written}}}}}}}")
    assert (found.endpoints["http"].balance, found.endpoints["http"].affinity) == ("consistent", seconds)


@pytest.mark.parametrize(
    "declared", ["affinity: 25h", "affinity: -1", "affinity: soon", "affinity: true", "balance: best"]
)
def test_what_is_no_balancing_is_refused(declared: str) -> None:
    assert declared.partition(":")[0] in refused(f"{{endpoints: {{http: {{{declared}}}}}}}").where


@pytest.mark.parametrize(
    ("written", "translated"), [("off", False), ("'off'", False), ("on", True), ("false", False)]
)
def test_a_component_may_do_without_translation(written: str, translated: bool) -> None:
    assert component(f"{{network: {{services: {written}}}}}").network.services is translated


@pytest.mark.parametrize(
    "declared", ["network: 3", "network: {services: some}", "network: {proxy: off}", "ping: cell"]
)
def test_what_is_no_network_is_refused(declared: str) -> None:
    refused(f"{{{declared}}}")


def test_a_network_outside_may_be_pinged_where_that_is_declared() -> None:
    outside = "{connections: [{external: {cidr: 192.0.2.0/24, protocol: icmp}}]}"
    external = component(outside).connections[0].external
    assert external is not None and (external.protocol, external.port) == ("icmp", 0)
    error = refused("{connections: [{external: {cidr: 192.0.2.0/24, protocol: icmp, port: 7}}]}")
    assert error.message == "icmp has no ports."


def test_what_is_declared_of_the_network_survives_being_stored_and_judged() -> None:
    text = """
components:
  web:
    ping: true
    network: {services: off}
    limits: {bandwidth_in: 1M, bandwidth_out: 2.5G, connections_per_second: 7, connections: 70}
    endpoints: {http: {port: 80, balance: consistent, affinity: 1h}}
    connections: [{external: {cidr: "2001:db8::/32", protocol: icmp}}]
"""
    read = parse({"cytoplane.yaml": text}, project="shop", detected={".": "dockerfile"})
    document = json.loads(json.dumps(read.as_dict()))
    assert Specification.from_dict(document) == read
    assert validate(document, project="shop") == read
    document["components"]["web"]["limits"]["bandwidth_in"] = 1
    with pytest.raises(SpecificationError):
        validate(document, project="shop")


def test_a_release_from_before_has_no_limits_of_the_network() -> None:
    read = parse({"cytoplane.yaml": "components: {web: {}}"}, project="shop", detected={".": "dockerfile"})
    document = read.as_dict()
    web = document["components"]["web"]
    web["limits"] = {"memory": 256, "cpu": 0.5}
    del web["ping"], web["network"]
    for endpoint in web["endpoints"].values():
        del endpoint["balance"], endpoint["affinity"]
    assert Specification.from_dict(document) == read
