"""A plane that is followed change by change is the plane that is compiled anew, part by part."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cells.boundary import compile_topology, model
from cells.boundary.incremental import PLATFORM, Incremental
from cells.boundary.model import IDENTITY_NORTH, Boundary, Cell, Topology
from tests.cells.test_boundary_properties import worlds
from tests.cells.topologies import normal

many = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@st.composite
def _other(draw: st.DrawFn, cell: Cell) -> Cell:
    """The cell with something of it taken away or turned over."""
    kept = []
    for workload in cell.workloads:
        if not draw(st.integers(0, 5)):
            continue
        values: dict = {}
        for name in ("endpoints", "connections", "replicas"):
            entries = getattr(workload, name)
            if entries and draw(st.booleans()):
                values[name] = tuple(draw(st.lists(st.sampled_from(entries), unique=True)))
        endpoints = values.get("endpoints", workload.endpoints)
        values["endpoints"] = tuple(
            replace(e, visibility=draw(st.sampled_from((e.visibility, "cell", "tenant"))), hosts=())
            if draw(st.booleans())
            else e
            for e in endpoints
        )
        kept.append(replace(workload, **values))
    return replace(cell, strict=draw(st.booleans()), audit=draw(st.booleans()), workloads=tuple(kept))


def _cells(topology: Topology, now: dict[int, Cell]) -> Topology:
    return replace(topology, cells=tuple(now[number] for number in sorted(now)))


@many
@given(worlds(), st.data())
def test_whatever_happens_in_whatever_order_it_is_as_if_compiled_anew(
    topology: Topology, data: st.DataObject
) -> None:
    everything = {cell.number: cell for cell in topology.cells}
    now = {n: c for n, c in everything.items() if data.draw(st.booleans())}
    followed = Incremental(_cells(topology, now))
    for _ in range(data.draw(st.integers(1, 6))):
        number = data.draw(st.sampled_from(sorted(everything)))
        before = dict(followed.parts)
        if number in now and data.draw(st.integers(0, 3)) == 0:
            del now[number]
            differing = followed.remove(number)
        else:
            now[number] = data.draw(st.one_of(st.just(everything[number]), _other(everything[number])))
            differing = followed.change(now[number])
        whole = compile_topology(_cells(topology, now))
        assert normal(followed.boundary()) == normal(whole)
        known = set(before) | set(followed.parts)
        assert differing == {n for n in known if before.get(n) != followed.parts.get(n)}, (
            "and says what differs"
        )


@many
@given(worlds())
def test_parts_hold_nothing_in_common_but_the_rights_of_the_north_gateway(topology: Topology) -> None:
    counts: Counter = Counter()
    for part in Incremental(topology).parts.values():
        counts.update(f"identity {i}" for i in part.identities if i != IDENTITY_NORTH)
        counts.update(part.addresses.keys())
        counts.update(f"names {i}" for i in part.names)
        counts.update((s.consumer, s.address, s.port, s.protocol) for s in part.services)
        counts.update(f"cluster {c.name}" for c in part.clusters)
        counts.update(f"listener {entry.name}" for entry in part.listeners)
    assert {what for what, number in counts.items() if number > 1} == set()


def test_what_is_a_cells_own_reaches_no_other() -> None:
    followed = Incremental(_pair(replicas=1))
    before = dict(followed.parts)
    more = next(cell for cell in _pair(replicas=2).cells if cell.number == 2)
    assert followed.change(more) == {2}
    assert followed.parts[1] is before[1]
    assert followed.parts[PLATFORM] is before[PLATFORM]


def test_a_change_reaches_those_who_call_and_who_are_called() -> None:
    followed = Incremental(_pair(replicas=1))
    consumer, provider = _pair(replicas=1).cells
    assert followed.remove(2) == {1, 2}
    assert services(followed.parts[1]) == set()
    assert followed.change(provider) == {1, 2}
    assert services(followed.parts[1]) == {("10.65.0.9", 8080), ("fd63::9", 8080)}
    assert followed.remove(1) == {1, 2}
    assert followed.parts[2].listeners == []
    assert followed.change(consumer) == {1, 2}
    assert [entry.port for entry in followed.parts[2].listeners] == [20000]


def services(part: Boundary) -> set[tuple[str, int]]:
    return {(s.address, s.port) for s in part.services if s.consumer}


def _pair(replicas: int) -> Topology:
    """Cell 1 calls cell 2 through its gateway."""

    def cell(number: int, workload: model.Workload) -> Cell:
        return Cell(
            number, 1, "acme", f"p{number}", "production", 1000 + number, 90000 + number,
            f"10.64.255.{number}", f"fd63::ff:{number}", workloads=(workload,),
        )  # fmt: skip

    call = model.Connection(1100, "API", provider=301, endpoint="http", listener_port=20000)
    endpoint = model.Endpoint(1101, "http", 8080, "http", "tenant")
    running = tuple(model.Replica(f"r{n}", f"10.64.1.{n}", f"fd63::1:{n}", True) for n in range(replicas))
    return Topology(
        cells=(
            cell(1, model.Workload(300, "web", "10.65.0.8", "fd63::8", connections=(call,))),
            cell(2, model.Workload(301, "api", "10.65.0.9", "fd63::9", (endpoint,), replicas=running)),
        )
    )
