"""How many replicas there should be: what any sequence of measurements must never lead to, and a few cases."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoscaling.decision import CALM, LONGEST_GAP, UP_SECONDS, Load, Look, decide, remembered
from cells.specification import Scaling

EVERY = 15.0
CPU = Scaling(1, 10, cpu=50)
REQUESTS = Scaling(1, 10, requests=20)

_figure = st.none() | st.floats(0, 100)
_scalings = st.builds(
    lambda least, more, cpu, requests: Scaling(least, min(50, least + more), cpu, requests or 0.0),
    st.integers(1, 10), st.integers(0, 10), st.integers(5, 90), st.sampled_from([0, 0.5, 20, 1000]),
)  # fmt: skip
_looks = st.lists(st.tuples(st.floats(1, 90), st.integers(1, 12), st.integers(1, 12)), max_size=30)


def even(share: float | None, number: int) -> Load:
    return Load(cpu=(share,) * number, requests=(share,) * number)


def before(looks: Iterable[tuple[float, int, int]], now: float) -> list[Look]:
    """A history that ends a moment before ``now``, from pauses, numbers and recommendations."""
    entries = list(looks)
    ends = list(itertools.accumulate(pause for pause, _, _ in entries))
    whole = ends[-1] if ends else 0
    return [Look(now - 1 - whole + end, n, w) for end, (_, n, w) in zip(ends, entries, strict=True)]


def quiet(number: int, wanted: int, now: float, seconds: float = CALM + EVERY) -> list[Look]:
    times = [now - seconds + EVERY * step for step in range(int(seconds / EVERY))]
    return [Look(at, number, wanted) for at in times]


class Loop:
    """A component under a load that its replicas share evenly, looked at every fifteen seconds."""

    def __init__(self, scaling: Scaling, number: int) -> None:
        self.scaling, self.number, self.now = scaling, number, 1e6
        self.history: list[Look] = []
        self.numbers: list[int] = []

    def run(self, load: float, looks: int) -> list[int]:
        """The numbers after each look. ``load``: of all replicas together."""
        for _ in range(looks):
            share = load / self.number
            found = Load((min(100.0, share),) * self.number, (share,) * self.number)
            decision = decide(self.scaling, found, self.history, self.now)
            self.history = remembered(self.history, Look(self.now, self.number, decision.wanted))
            self.number = decision.number
            self.numbers.append(self.number)
            self.now += EVERY
        return self.numbers[-looks:]


@settings(max_examples=300, deadline=None)
@given(_scalings, st.lists(_figure, max_size=12), st.lists(_figure, max_size=12), _looks)
def test_the_number_stays_between_the_ends_whatever_was_measured(
    scaling: Scaling, cpu: list, requests: list, looks: list
) -> None:
    found = decide(scaling, Load(tuple(cpu), tuple(requests[: len(cpu)])), before(looks, 1e6), 1e6)
    assert scaling.least <= found.number <= scaling.most
    assert scaling.least <= found.wanted <= scaling.most
    assert found.why
    assert found.number == found.wanted or found.held


@settings(max_examples=300, deadline=None)
@given(st.lists(_figure, min_size=1, max_size=10), st.integers(0, 9), _looks)
def test_what_is_missing_never_takes_a_replica_away(figures: list, hole: int, looks: list) -> None:
    figures[hole % len(figures)] = None
    history = before(looks, 1e6) if looks else quiet(len(figures), 1, 1e6)
    for scaling, load in ((CPU, Load(cpu=tuple(figures))), (REQUESTS, Load(requests=tuple(figures)))):
        found = decide(scaling, load, history, 1e6)
        assert found.number >= min(len(figures), scaling.most)
        assert found.wanted > len(figures) or "nothing is known" in found.held


@settings(max_examples=300, deadline=None)
@given(_scalings, st.lists(st.floats(0, 100), min_size=1, max_size=12), _looks)
def test_within_a_minute_the_number_at_most_doubles(scaling: Scaling, cpu: list, looks: list) -> None:
    history = before(looks, 1e6)
    found = decide(scaling, Load(tuple(cpu), tuple(cpu)), history, 1e6)
    lately = [look.number for look in history if look.at > 1e6 - UP_SECONDS] + [len(cpu)]
    if scaling.least <= len(cpu) and found.number > len(cpu):
        assert found.number <= 2 * min(lately)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.floats(0, 400), min_size=1, max_size=60), st.integers(1, 10))
def test_whatever_the_load_does_nothing_goes_down_within_five_minutes_of_going_up(
    loads: list, number: int
) -> None:
    loop = Loop(REQUESTS, number)
    raised = None
    for load in loads:
        earlier = loop.number
        loop.run(load, 1)
        if loop.number > earlier:
            raised = loop.now
        if loop.number < earlier:
            assert raised is None or loop.now - raised >= CALM


@settings(max_examples=100, deadline=None)
@given(st.floats(0.5, 195), st.integers(1, 10))
def test_a_steady_load_finds_its_number_and_stays_there(load: float, number: int) -> None:
    loop = Loop(REQUESTS, number)
    settled = loop.run(load, 80)[-30:]
    assert len(set(settled)) == 1
    share = load / settled[0]
    assert share <= 20 * 1.1 + 1e-6
    assert settled[0] == 1 or load / (settled[0] - 1) > 20 * 0.9


def test_load_that_is_near_enough_changes_nothing() -> None:
    for share in (45.5, 50, 54.5):
        found = decide(CPU, even(share, 4), quiet(4, 4, 1e6), 1e6)
        assert (found.number, found.wanted, found.held) == (4, 4, "")


def test_a_sudden_load_doubles_the_number_every_minute() -> None:
    loop = Loop(REQUESTS, 1)
    assert loop.run(200, 14) == [2, 2, 2, 2, 4, 4, 4, 4, 8, 8, 8, 8, 10, 10]


def test_after_the_load_is_gone_it_takes_five_minutes() -> None:
    loop = Loop(REQUESTS, 1)
    loop.run(100, 40)
    assert loop.number == 5
    after = loop.run(10, 25)
    assert after[:19] == [5] * 19
    assert after[21:] == [1] * 4


def test_the_highest_of_the_last_minutes_counts_on_the_way_down() -> None:
    history = quiet(6, 2, 1e6)
    history[10] = Look(history[10].at, 6, 4)
    found = decide(CPU, even(10, 6), history, 1e6)
    assert (found.number, found.wanted) == (4, 2)
    assert "4 were needed" in found.held


@pytest.mark.parametrize(
    "history",
    [
        [],
        quiet(4, 1, 1e6, CALM / 2),
        [look for look in quiet(4, 1, 1e6) if not 1e6 - 200 < look.at < 1e6 - 200 + LONGEST_GAP + 5],
        [Look(look.at - 2 * LONGEST_GAP, look.number, look.wanted) for look in quiet(4, 1, 1e6, 600)],
        [Look(look.at, 2 if look.at < 1e6 - 250 else 4, 1) for look in quiet(4, 1, 1e6)],
    ],
    ids=["none", "short", "with a gap", "old", "raised meanwhile"],
)
def test_without_five_watched_minutes_nothing_goes_down(history: list[Look]) -> None:
    found = decide(CPU, even(1, 4), history, 1e6)
    assert (found.number, found.wanted) == (4, 1)
    assert "five minutes" in found.held


def test_of_two_figures_the_one_that_needs_more_decides() -> None:
    both = Scaling(1, 10, cpu=50, requests=20)
    found = decide(both, Load((10.0, 10.0), (60.0, 60.0)), [], 1e6)
    assert found.wanted == 6
    assert found.why == "requests 60 a second and replica, 20 wanted"
    found = decide(both, Load((90.0, 90.0), (None, None)), [], 1e6)
    assert (found.number, found.why) == (4, "CPU 90 % of the limit, 50 wanted")


def test_more_load_than_the_most_replicas_can_take_is_said() -> None:
    found = decide(Scaling(1, 3, cpu=50), even(100, 3), [], 1e6)
    assert found.number == 3
    assert found.held == "the load is one for 6; 3 is the most"


@pytest.mark.parametrize(("number", "expected"), [(1, 3), (12, 10)])
def test_a_number_outside_the_range_comes_into_it_at_once(number: int, expected: int) -> None:
    assert decide(Scaling(3, 10, cpu=50), even(50, number), [], 1e6).number == expected
    assert decide(Scaling(3, 10, cpu=50), even(None, number), [], 1e6).number == expected


def test_without_a_replica_there_are_the_least() -> None:
    assert decide(Scaling(2, 4, cpu=50), Load(), [], 1e6).number == 2


def test_history_is_bounded() -> None:
    history: list[Look] = []
    for step in range(1000):
        history = remembered(history, Look(step * 0.1, 1, 1))
    assert len(history) <= 201
    assert remembered(history, Look(1e6, 1, 1)) == [Look(1e6, 1, 1)]
