"""One asker's flood is its own trouble."""

from __future__ import annotations

import logging

import pytest

from dataplane.resolver import pace
from dataplane.resolver.pace import BURST, RATE, Pace

FLOOD, QUIET = "10.64.0.5", "10.64.0.6"


def test_a_flood_is_cut_to_its_pace_and_others_arent(caplog: pytest.LogCaptureFixture) -> None:
    clock = [100.0]
    limits = Pace(lambda: clock[0])
    assert sum(limits.admits(FLOOD) for _ in range(3 * BURST)) == pytest.approx(BURST, abs=1)
    assert limits.admits(QUIET)
    clock[0] += 1
    assert sum(limits.admits(FLOOD) for _ in range(3 * BURST)) == pytest.approx(RATE, abs=1)
    with caplog.at_level(logging.WARNING, pace.log.name):
        limits.tidy()
        limits.tidy()
    assert [record.message.partition(" questions of ")[2].split()[0] for record in caplog.records] == [FLOOD]


def test_who_is_quiet_is_forgotten() -> None:
    clock = [0.0]
    limits = Pace(lambda: clock[0])
    for number in range(500):
        limits.admits(f"10.64.1.{number}")
    clock[0] += BURST / RATE
    limits.tidy()
    assert not limits._until
