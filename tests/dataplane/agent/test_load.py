"""What is reported of replicas' load: growth of real counters, and nothing where that isn't known."""

from __future__ import annotations

from pathlib import Path

from dataplane.agent.load import Measured, Meter, requests

CLUSTERS = """north-1::default_priority::max_connections::4096
north-1::added_via_api::true
north-1::10.9.0.2:8080::cx_active::1
north-1::10.9.0.2:8080::rq_total::{a}
north-1::10.9.0.2:8080::rq_success::3
north-1::10.9.0.3:8080::rq_total::5
cell-2::10.9.0.2:9000::rq_total::{b}
cell-2::[fd00::2]:8080::rq_total::7
cell-2::envoy://to-node2/node2::rq_total::40
"""
BOTH = frozenset({"cpu", "requests"})


class Counters:
    """A control group, a gateway and a clock whose counters tests move."""

    def __init__(self, folder: Path) -> None:
        self.group, self.now, self.a, self.b = folder, 100.0, 0, 0
        self.silent = False
        self.processor(0)
        self.meter = Meter(self.ask, lambda: self.now)

    def processor(self, seconds: float) -> None:
        (self.group / "cpuacct.usage").write_text(f"{int(seconds * 1e9)}\n")

    def ask(self) -> str:
        if self.silent:
            raise OSError("nobody answers")
        return CLUSTERS.format(a=self.a, b=self.b)

    def measured(self, what: frozenset[str] = BOTH, address: str = "10.9.0.2") -> dict[str, Measured]:
        return {"r1": Measured(what, address, self.group)}


def test_requests_are_summed_by_address_and_those_by_another_node_are_its() -> None:
    assert requests(CLUSTERS.format(a=10, b=2)) == {"10.9.0.2": 12, "10.9.0.3": 5, "fd00::2": 7}
    assert requests("nonsense\na::b\n::::\nx::1.2.3.4:1::rq_total::-1\n") == {}


def test_growth_is_reported_for_each_second(tmp_path: Path) -> None:
    counters = Counters(tmp_path)
    assert counters.meter.read(counters.measured()) == []
    counters.processor(2.5)
    counters.a, counters.b, counters.now = 30, 20, 110.0
    assert counters.meter.read(counters.measured()) == [{"id": "r1", "cpu": 0.25, "requests": 5.0}]
    counters.now = 120.0
    assert counters.meter.read(counters.measured()) == [{"id": "r1", "cpu": 0.0, "requests": 0.0}]


def test_only_what_is_asked_for_is_read(tmp_path: Path) -> None:
    counters = Counters(tmp_path)
    asked = counters.measured(frozenset({"cpu"}))
    counters.meter.read(asked)
    counters.now, counters.silent = 110.0, True
    assert counters.meter.read(asked) == [{"id": "r1", "cpu": 0.0}]
    assert counters.meter.read({}) == []


def test_a_counter_that_began_anew_says_nothing_until_it_has_grown(tmp_path: Path) -> None:
    counters = Counters(tmp_path)
    counters.processor(50)
    counters.a = 100
    counters.meter.read(counters.measured())
    counters.processor(1)
    counters.a, counters.now = 3, 110.0
    assert counters.meter.read(counters.measured()) == []
    counters.processor(2)
    counters.a, counters.now = 13, 120.0
    assert counters.meter.read(counters.measured()) == [{"id": "r1", "cpu": 0.1, "requests": 1.0}]


def test_another_group_is_another_counter(tmp_path: Path) -> None:
    counters = Counters(tmp_path)
    counters.meter.read(counters.measured(frozenset({"cpu"})))
    counters.group = tmp_path / "restarted"
    counters.group.mkdir()
    counters.processor(9)
    counters.now = 110.0
    assert counters.meter.read(counters.measured(frozenset({"cpu"}))) == []


def test_a_gateway_that_is_silent_is_no_zero(tmp_path: Path) -> None:
    counters = Counters(tmp_path)
    counters.meter.read(counters.measured())
    counters.now, counters.silent = 110.0, True
    assert counters.meter.read(counters.measured()) == [{"id": "r1", "cpu": 0.0}]
    counters.now, counters.silent, counters.a = 120.0, False, 1000
    assert counters.meter.read(counters.measured()) == [{"id": "r1", "cpu": 0.0}]


def test_whom_no_gateway_calls_gets_no_requests(tmp_path: Path) -> None:
    counters = Counters(tmp_path)
    asked = counters.measured(frozenset({"requests"}), "10.9.0.99")
    counters.meter.read(asked)
    counters.now = 110.0
    assert counters.meter.read(asked) == [{"id": "r1", "requests": 0.0}]


def test_two_looks_in_a_moment_are_one(tmp_path: Path) -> None:
    counters = Counters(tmp_path)
    counters.meter.read(counters.measured())
    counters.processor(1)
    counters.now = 100.5
    assert counters.meter.read(counters.measured()) == []
    counters.now = 110.0
    assert counters.meter.read(counters.measured())[0]["cpu"] == 0.1
