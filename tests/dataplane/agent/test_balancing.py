"""Services and limits of desired state on their way into the kernel."""

from __future__ import annotations

from typing import Any

import pytest

from bpf.tables import Backend
from dataplane.agent import balancing, limits
from tests.bpf.laboratory import TCP, Laboratory


def entry(*backends: tuple[str, str, int], **more: Any) -> dict[str, Any]:
    known = [list(backend) for backend in backends]
    return {"consumer": 0, "address": "10.65.0.9", "port": 80, "protocol": TCP, "backends": known, **more}


ONE, TWO, GATE = ("r1", "10.64.1.1", 8080), ("r2", "10.64.1.2", 8080), ("gateway", "10.64.0.1", 10000)


def test_each_backend_keeps_its_share_when_others_are_left_out() -> None:
    wanted = entry(ONE, TWO, weights=[50, 200], choice="consistent", affinity=60)
    (service,) = balancing.services([wanted], None)
    assert service.backends == (Backend("10.64.1.1", 8080, 50), Backend("10.64.1.2", 8080, 200))
    assert (service.choice, service.affinity) == ("consistent", 60)
    (service,) = balancing.services([wanted], {"r2"})
    assert service.backends == (Backend("10.64.1.2", 8080, 200),)
    (service,) = balancing.services([wanted], set())
    assert service.backends == ()


def test_a_gateway_serves_whoever_else_does() -> None:
    (service,) = balancing.services([entry(GATE)], set())
    assert service.backends == (Backend("10.64.0.1", 10000, 1),)


def test_a_state_from_before_there_were_shares_has_equal_ones() -> None:
    (service,) = balancing.services([entry(ONE, TWO)], None)
    assert service.backends == (Backend("10.64.1.1", 8080, 1), Backend("10.64.1.2", 8080, 1))
    assert (service.choice, service.affinity) == ("random", 0)


@pytest.mark.root
def test_limits_of_desired_state_bite_and_what_is_used_is_said(laboratory: Laboratory) -> None:
    a, b = laboratory.workload("a", 300, 1024), laboratory.workload("b", 301, 1025)
    b.listen(TCP, 8080)
    laboratory.allow(("a", "b", 8080, TCP))
    boundary = {"limits": {"300": [0, 0, 0, 2]}}
    try:
        limits.apply(laboratory.tables, boundary)
        with a.connected(b.v4, 8080), a.connected(b.v6, 8080):
            with pytest.raises(ConnectionRefusedError):
                a.connected(b.v4, 8080)
            # Of those that have no limit nothing is said.
            assert limits.usage(laboratory.tables, boundary) == {"300": 2}
            limits.apply(laboratory.tables, {})
            a.connected(b.v4, 8080).close()
    finally:
        limits.apply(laboratory.tables, {})
