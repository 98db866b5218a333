"""Reports in batches that are always taken."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataplane.agent.outbox import BATCH_BYTES, MOST_WAITING, Outbox

LONGEST = "\x01" * 8192


def line(text: str) -> dict[str, str]:
    return {"replica": "r1", "text": text}


def test_long_lines_of_control_bytes_fit_into_what_the_control_plane_accepts() -> None:
    outbox = Outbox()
    outbox.add("logs", [line(LONGEST)] * 2000)
    sizes = []
    while batch := outbox.batch():
        sizes.append(len(json.dumps(batch)))
        outbox.delivered()
    assert max(sizes) < 2 * BATCH_BYTES < 2 * 2**20
    assert len(sizes) > 100


def test_a_batch_that_was_not_delivered_comes_first_again_in_its_order() -> None:
    outbox = Outbox()
    outbox.add("logs", [line(str(n)) for n in range(5)])
    first = outbox.batch()
    outbox.returned()
    outbox.add("logs", [line("later")])
    assert [item["text"] for item in outbox.batch()["logs"]] == ["0", "1", "2", "3", "4", "later"]
    assert first["logs"][0]["text"] == "0"


def test_a_refused_batch_is_gone_and_counted_and_the_next_one_goes_out() -> None:
    outbox = Outbox()
    outbox.add("flows", [{"port": 1}])
    outbox.batch()
    outbox.refused()
    outbox.add("flows", [{"port": 2}])
    assert (outbox.batch()["flows"], outbox.lost) == ([{"port": 2}], 1)


def test_flows_are_not_held_up_by_lines() -> None:
    outbox = Outbox()
    outbox.add("logs", [line(LONGEST)] * 1000)
    outbox.add("flows", [{"port": 1}])
    assert outbox.batch()["flows"] == [{"port": 1}]


def test_the_oldest_go_when_the_control_plane_is_away_for_long() -> None:
    outbox = Outbox()
    outbox.add("logs", [line(str(n)) for n in range(MOST_WAITING + 3)])
    assert outbox.lost == 3
    assert outbox.batch()["logs"][0]["text"] == "3"


@given(st.lists(st.sampled_from(["add", "delivered", "returned"]), max_size=30), st.integers(1, 40))
def test_nothing_is_lost_or_doubled_whatever_happens(steps: list[str], many: int) -> None:
    outbox, number, out = Outbox(), 0, []
    for step in steps:
        if step == "add":
            outbox.add("logs", [line(str(number + n) + "x" * 6000) for n in range(many)])
            number += many
            continue
        batch = outbox.batch()
        getattr(outbox, step)()
        if step == "delivered":
            out += batch.get("logs", [])
    while batch := outbox.batch():
        out += batch["logs"]
        outbox.delivered()
    assert [int(item["text"].rstrip("x")) for item in out] == list(range(number))
    assert len(outbox) == 0


def test_two_batches_at_once_are_a_mistake() -> None:
    outbox = Outbox()
    outbox.add("logs", [line("a")])
    outbox.batch()
    with pytest.raises(AssertionError):
        outbox.batch()
