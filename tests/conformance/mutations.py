"""Compilers that are wrong in one place each, to see whether the checks notice."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import pytest

from cells.boundary import compiler, edges, model
from cells.boundary.edges import Edge
from cells.boundary.model import Boundary, Cell, Endpoint, Topology, Workload

Mutation = Callable[[pytest.MonkeyPatch], None]


def _decides(change: Callable[[Cell, Workload, Cell, Workload, Endpoint, Edge], Edge]) -> Mutation:
    """The rules of one edge, changed behind the real ones."""

    def patch(monkeypatch: pytest.MonkeyPatch) -> None:
        def decide(cell: Cell, consumer: Workload, other: Cell, provider: Workload, endpoint: Endpoint) -> Edge:  # fmt: skip
            edge = edges.decide(cell, consumer, other, provider, endpoint)
            return change(cell, consumer, other, provider, endpoint, edge)

        monkeypatch.setattr(compiler, "decide", decide)

    return patch


def _opens(*reasons: str) -> Mutation:
    """What is refused for one of these reasons is allowed."""

    def change(
        cell: Cell, consumer: Workload, other: Cell, provider: Workload, endpoint: Endpoint, edge: Edge
    ) -> Edge:
        return Edge(True, "CONNECTION", edge.rule) if edge.reason in reasons else edge

    return _decides(change)


def _behind_the_gateway(
    cell: Cell, consumer: Workload, other: Cell, provider: Workload, endpoint: Endpoint, edge: Edge
) -> Edge:
    return replace(edge, connection=None)


def _closes(reason: str) -> Mutation:
    def change(
        cell: Cell, consumer: Workload, other: Cell, provider: Workload, endpoint: Endpoint, edge: Edge
    ) -> Edge:
        return Edge(False, "STRICT", edge.rule) if edge.reason == reason else edge

    return _decides(change)


def _after(change: Callable[[Topology, Boundary], None]) -> Mutation:
    """The finished tables, changed."""

    def patch(monkeypatch: pytest.MonkeyPatch) -> None:
        real = compiler._platform

        def platform(topology: Topology, boundary: Boundary) -> None:
            real(topology, boundary)
            monkeypatch.setitem(_LATER, id(boundary), change)

        monkeypatch.setattr(compiler, "_platform", platform)

    return patch


_LATER: dict[int, Any] = {}


def compiled(topology: Topology) -> Boundary:
    """The boundary, by a compiler that may have been made wrong."""
    boundary = compiler.compile_topology(topology)
    change = _LATER.pop(id(boundary), None)
    if change:
        change(topology, boundary)
    return boundary


def _workloads(topology: Topology, boundary: Boundary) -> Iterable[model.IdentityPolicy]:
    return (boundary.identities[identity] for identity in topology.by_identity())


def _no_ingress(topology: Topology, boundary: Boundary) -> None:
    for policy in _workloads(topology, boundary):
        policy.policy = [entry for entry in policy.policy if entry[3] != model.INGRESS]


def _any_port_outside(topology: Topology, boundary: Boundary) -> None:
    for policy in _workloads(topology, boundary):
        policy.external = [(network, 0, *rest) for network, _, *rest in policy.external]  # type: ignore[misc]


def _no_floor(topology: Topology, boundary: Boundary) -> None:
    boundary.floor = ()
    for policy in _workloads(topology, boundary):
        policy.external += [("198.18.0.0/15", 443, model.TCP, model.ALLOW, 1), ("fd77:7::/32", 443, model.TCP, model.ALLOW, 1)]  # fmt: skip


def _common_listener(topology: Topology, boundary: Boundary) -> None:
    for identity, policy in boundary.identities.items():
        entry = (topology.north_port, model.TCP)
        if identity in topology.by_identity():
            policy.policy.append((model.IDENTITY_NORTH, *entry, model.EGRESS, model.ALLOW, 1))
            north = boundary.identities[model.IDENTITY_NORTH]
            north.policy.append((identity, *entry, model.INGRESS, model.ALLOW, 1))


def _idle_replicas(topology: Topology, boundary: Boundary) -> None:
    owners = {w.service4: w for _, w in topology.by_identity().values()}
    boundary.services = [
        replace(s, backends=tuple((r.id, r.v4, s.port) for r in owners[s.address].replicas))
        if s.address in owners and s.consumer == 0
        else s
        for s in boundary.services
    ]


def _from_everywhere(topology: Topology, boundary: Boundary) -> None:
    """The node is let in, as a health check by packets would need."""
    for _, workload in topology.by_identity().values():
        policy = boundary.identities[workload.identity].policy
        for endpoint in workload.endpoints:
            policy.append(
                (model.IDENTITY_NODE, endpoint.port, endpoint.number, model.INGRESS, model.ALLOW, 1)
            )


MUTATIONS: dict[str, Mutation] = {
    "another tenant is no stranger": _opens("OTHER_TENANT"),
    "another environment is no stranger": _opens("OTHER_ENVIRONMENT"),
    "strict means nothing": _opens("STRICT"),
    "visibility means nothing": _opens("VISIBILITY"),
    "callers' names are believed from anybody": _opens("CALLERS_ONLY"),
    "the gateway isn't the only way": _decides(_behind_the_gateway),
    "one's own cell is closed": _closes("SAME_CELL"),
    "receivers have no entries": _after(_no_ingress),
    "a network outside is open on every port": _after(_any_port_outside),
    "there is no floor": _after(_no_floor),
    "the internet's listener is everybody's": _after(_common_listener),
    "replicas that don't serve yet are led to": _after(_idle_replicas),
    "the node is let in": _after(_from_everywhere),
}
