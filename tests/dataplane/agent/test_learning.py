"""Looking for what has ended holds up nobody's question."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from dataplane.agent import learning
from dataplane.agent.learning import Learning
from dataplane.resolver.lessons import GRACE
from dataplane.resolver.lookups import TTL_CEILING

MANY, TCP = 40, 6


class Memory:
    """In the place of the kernel's table."""

    def __init__(self) -> None:
        self.open: set[tuple[Any, ...]] = set()

    def learned(self) -> dict[Any, int]:
        return {}

    def learn(self, identity: int, address: str, port: int, protocol: int, rule: int) -> None:
        self.open.add((identity, address))

    def forget_learned(self, identity: int, address: str, port: int, protocol: int) -> None:
        self.open.discard((identity, address))


def test_a_round_ends_when_it_has_taken_long_and_the_longest_ended_come_first(tmp_path: Path) -> None:
    clock, memory = [1000.0], Memory()
    made = Learning(memory, tmp_path / "learned.json", now=lambda: clock[0])  # type: ignore[arg-type]
    entry = ["api.example.test", 443, TCP, 1]
    made.update({"external_names": {str(MANY - n): [entry] for n in range(MANY)}}, [])
    for number in range(MANY):
        clock[0] += 1
        made.teach(MANY - number, "api.example.test", ["198.51.100.7"], 60)
    clock[0] += TTL_CEILING + GRACE
    looked: list[int] = []

    def slow(identity: int) -> set[str]:
        looked.append(identity)
        time.sleep(learning.LONG_ENOUGH / 3)
        return set()

    made.tidy(slow)
    assert looked == [MANY - n for n in range(len(looked))] and 0 < len(looked) <= 4
    made.tidy(lambda identity: set())
    assert memory.open == set(), "the others are looked at in the next round"


def test_an_identity_that_was_taken_out_and_is_back_has_what_it_was_answered(tmp_path: Path) -> None:
    """Nobody asks again for what he knows for an hour."""
    memory = Memory()
    made = Learning(memory, tmp_path / "learned.json")  # type: ignore[arg-type]
    boundary = {"external_names": {"70": [["api.example.test", 443, TCP, 1]]}}
    made.update(boundary, [])
    made.teach(70, "api.example.test", ["198.51.100.7"], 3600)
    memory.open.clear()
    made.update(boundary, [], {70, 71})
    assert memory.open == {(70, "198.51.100.7")}
    memory.open.clear()
    made.update({}, [], {70})
    assert memory.open == set()


def test_names_without_end_of_one_address_take_no_room_without_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever owns a domain has as many names in it as he likes."""
    monkeypatch.setattr(learning, "MOST_ANSWERS", 20)
    clock, memory = [1000.0], Memory()
    made = Learning(memory, tmp_path / "learned.json", now=lambda: clock[0])  # type: ignore[arg-type]
    entries = [["*.example.test", 443, TCP, 1], ["api.other.test", 80, TCP, 2]]
    made.update({"external_names": {"70": entries}}, [])
    assert made.teach(70, "api.other.test", ["198.51.100.8"], 3600).addresses
    for number in range(100):
        assert made.teach(70, f"n{number}.example.test", ["198.51.100.7"], 3600 - number).addresses
    assert len(made._answers[70]) == 20
    lesson = made.teach(70, "more.example.test", ["198.51.100.9"], 60)
    assert not lesson.addresses and lesson.refusal
    assert [row["reason"] for row in made.take()] == [learning.QUOTA]
    assert memory.open == {(70, "198.51.100.7"), (70, "198.51.100.8")}
    # The longest of them still counts.
    clock[0] += 3600 + GRACE - 1
    made.tidy(lambda identity: set())
    assert memory.open == {(70, "198.51.100.7"), (70, "198.51.100.8")}


def test_a_clock_that_is_set_closes_nothing_and_keeps_nothing_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory, file = Memory(), tmp_path / "learned.json"
    boundary = {"external_names": {"70": [["api.example.test", 443, TCP, 1]]}}
    made = Learning(memory, file)  # type: ignore[arg-type]
    made.update(boundary, [])
    made.teach(70, "api.example.test", ["198.51.100.7"], 60)
    monkeypatch.setattr(time, "time", lambda: 4e9)
    made.tidy(lambda identity: set())
    assert memory.open == {(70, "198.51.100.7")}
    # What was noted with another clock, or is none: an hour at most.
    for end in ("4e9", "NaN", "Infinity"):
        file.write_text(f'[[70, "api.example.test", "198.51.100.8", {end}]]')
        clock, later = [0.0], Memory()
        again = Learning(later, file, now=lambda clock=clock: clock[0])  # type: ignore[arg-type,misc]
        again.update(boundary, [])
        assert later.open == {(70, "198.51.100.8")}
        clock[0] = TTL_CEILING + GRACE + 1
        again.tidy(lambda identity: set())
        assert later.open == set(), end
