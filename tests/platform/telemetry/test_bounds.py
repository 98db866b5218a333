"""A cell that scans or floods: what is kept of it, that nothing goes uncounted, and that others keep theirs."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.db.models import Sum
from django.utils import timezone

from delivery.models import Replica
from projects.models import Cell, Workload
from telemetry import actions, bounds, queries, tasks
from telemetry.models import Edge, LogLine, LogMeter
from tests.factories import World

pytestmark = pytest.mark.django_db
WORLD = 2


@pytest.fixture
def cell(world: World) -> Cell:
    made = world.cell()
    world.deploy(made)
    return world.cell(made.project)


@pytest.fixture(autouse=True)
def one_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    """The minute doesn't end in the middle of a test."""
    now = timezone.now().replace(second=30)
    monkeypatch.setattr("telemetry.actions.timezone.now", lambda: now)


def identity(cell: Cell, component: str = "web") -> int:
    return Workload.objects.get(cell=cell, component__name=component).identity


def call(source: int, number: int = 0, **more: Any) -> dict[str, Any]:
    """A refused call to somewhere outside; each number is another port of another address."""
    remote = f"198.51.{number // 250}.{number % 250}"
    return {
        "source": source, "destination": WORLD, "remote": remote, "port": 1000 + number, "protocol": 6,
        "direction": 0, "allowed": False, "reason": "EGRESS", "packets": 2, "bytes": 120, **more,
    }  # fmt: skip


def sums(cell: Cell) -> tuple[int, int]:
    found = Edge.objects.filter(cell=cell).aggregate(packets=Sum("packets"), bytes=Sum("bytes"))
    return found["packets"], found["bytes"]


def test_a_scan_is_a_bounded_number_of_rows_and_every_packet_is_counted(world: World, cell: Cell) -> None:
    web = identity(cell)
    for start in (0, 500, 1000):
        calls = [call(web, start + number) for number in range(500)]
        assert actions.record_flows(world.plane, calls) == 500
    assert Edge.objects.filter(cell=cell).count() == bounds.MOST_ROWS + 1
    assert sums(cell) == (3000, 180000)
    others = Edge.objects.get(cell=cell, remote="", port=0)
    assert (others.source, others.destination, others.reason, others.verdict) == (web, WORLD, "EGRESS", 2)
    assert others.packets == 3000 - 2 * bounds.MOST_ROWS


def test_the_rest_is_called_others(world: World, cell: Cell) -> None:
    calls = [call(identity(cell), number) for number in range(bounds.MOST_ROWS + 5)]
    actions.record_flows(world.plane, calls)
    (row,) = [row for row in queries.edges(cell) if row["remote"] == "others"]
    assert (row["destination"], row["port"], row["packets"], row["fix"]) == ("internet", 0, 10, "")


def test_what_has_a_row_keeps_it_and_the_largest_of_the_new_get_one(world: World, cell: Cell) -> None:
    web = identity(cell)
    actions.record_flows(world.plane, [call(web, 0)])
    large = call(web, 5000, packets=10**6)
    actions.record_flows(
        world.plane, [*(call(web, number) for number in range(1, 1000)), large, call(web, 0)]
    )
    assert Edge.objects.get(cell=cell, port=1000).packets == 4
    assert Edge.objects.get(cell=cell, port=6000).packets == 10**6


def test_ways_and_verdicts_stay_apart(world: World, cell: Cell) -> None:
    web = identity(cell)
    kinds: list[dict[str, Any]] = [
        {},
        {"protocol": 17},
        {"reason": "FLOOR"},
        {"allowed": True, "reason": "OK", "rule": 9},
        {"allowed": True},
    ]
    calls = [call(web, number, **kinds[number % 5]) for number in range(5 * bounds.MOST_ROWS)]
    actions.record_flows(world.plane, calls)
    others = Edge.objects.filter(cell=cell, remote="", port=0).values_list("protocol", "verdict", "reason")
    assert set(others) == {
        (6, 2, "EGRESS"), (17, 2, "EGRESS"), (6, 2, "FLOOR"), (6, 1, ""), (6, 3, "EGRESS")
    }  # fmt: skip
    assert sums(cell)[0] == 2 * 5 * bounds.MOST_ROWS


def test_a_scan_of_the_platforms_own_is_bounded_too(world: World, cell: Cell) -> None:
    """Each destination has an identity there, so that the rows for others would be as many."""
    calls = [call(identity(cell), 0, remote="", destination=10**6 + number) for number in range(2000)]
    actions.record_flows(world.plane, calls)
    assert Edge.objects.filter(cell=cell).count() <= 2 * bounds.MOST_ROWS + 1
    assert sums(cell) == (4000, 240000)


def test_a_scan_takes_no_rows_from_another_cell(world: World, cell: Cell) -> None:
    foreign = world.cell(world.project("vault", "globex"), tenant="globex")
    world.deploy(foreign)
    scan = [call(identity(cell), number) for number in range(1000)]
    actions.record_flows(world.plane, [*scan, call(identity(foreign))])
    assert Edge.objects.get(cell=foreign).port == 1000


def test_the_next_minute_begins_anew(world: World, cell: Cell, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = [call(identity(cell), number) for number in range(bounds.MOST_ROWS + 5)]
    actions.record_flows(world.plane, calls)
    later = timezone.now() + timedelta(minutes=1)
    monkeypatch.setattr("telemetry.actions.timezone.now", lambda: later)
    actions.record_flows(world.plane, calls)
    assert Edge.objects.filter(cell=cell).count() == 2 * (bounds.MOST_ROWS + 1)


def test_old_rows_of_flows_above_a_cells_share_go(
    world: World, cell: Cell, monkeypatch: pytest.MonkeyPatch
) -> None:
    foreign = world.cell(world.project("vault", "globex"), tenant="globex")
    world.deploy(foreign)
    actions.record_flows(world.plane, [call(identity(cell)), call(identity(foreign))])
    Edge.objects.update(last_at=timezone.now() - timedelta(hours=1))
    actions.record_flows(world.plane, [call(identity(cell), number) for number in range(1, 4)])
    monkeypatch.setattr(tasks, "KEPT_ROWS", 3)
    tasks.prune()
    assert sorted(Edge.objects.filter(cell=cell).values_list("port", flat=True)) == [1001, 1002, 1003]
    assert Edge.objects.filter(cell=foreign).count() == 1


# Lines.


def replica(cell: Cell, component: str = "web") -> str:
    row = Replica.objects.get(workload__cell=cell, workload__component__name=component)
    return f"r{row.pk}"


def lines(name: str, count: int) -> list[dict[str, Any]]:
    return [{"replica": name, "text": str(number), "stream": "stdout"} for number in range(count)]


def platform(cell: Cell) -> list[str]:
    return list(
        LogLine.objects.filter(cell=cell, stream="platform").order_by("pk").values_list("text", flat=True)
    )


def test_a_flood_of_lines_is_cut_and_the_log_says_so(
    world: World, cell: Cell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(actions, "MOST_LINES", 100)
    assert actions.record_logs(world.plane, lines(replica(cell), 90)) == 90
    assert platform(cell) == []
    assert actions.record_logs(world.plane, lines(replica(cell), 50)) == 10
    assert actions.record_logs(world.plane, lines(replica(cell), 7)) == 0
    assert LogLine.objects.filter(cell=cell, stream="stdout").count() == 100
    assert [text.split(" ")[0] for text in platform(cell)] == ["40", "7"]
    assert LogLine.objects.filter(stream="platform").first().component == "web"  # type: ignore[union-attr]


def test_a_flood_takes_no_lines_from_another_cell(
    world: World, cell: Cell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(actions, "MOST_LINES", 100)
    foreign = world.cell(world.project("vault", "globex"), tenant="globex")
    world.deploy(foreign)
    actions.record_logs(world.plane, lines(replica(cell), 500) + lines(replica(foreign), 20))
    assert LogLine.objects.filter(cell=foreign).count() == 20
    assert platform(foreign) == []


def test_lines_are_taken_again_in_the_next_minute(
    world: World, cell: Cell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(actions, "MOST_LINES", 100)
    actions.record_logs(world.plane, lines(replica(cell), 500))
    later = timezone.now() + timedelta(minutes=1)
    monkeypatch.setattr("telemetry.actions.timezone.now", lambda: later)
    assert actions.record_logs(world.plane, lines(replica(cell), 60)) == 60
    assert LogMeter.objects.get().lines == 60
