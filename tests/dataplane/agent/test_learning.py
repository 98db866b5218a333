"""Looking for what has ended holds up nobody's question."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

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
