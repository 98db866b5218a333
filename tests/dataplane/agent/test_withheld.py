"""An end waits for its lines, and for nobody else's longer than for a moment."""

from __future__ import annotations

from dataplane.agent.withheld import SECONDS, Withheld


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_an_end_waits_while_there_are_lines_and_goes_at_once_without_them() -> None:
    withheld = Withheld(Clock())
    assert withheld.waits("r1", more=True)
    assert not withheld.waits("r1", more=False)


def test_who_prints_without_pause_keeps_nobodys_end_back_for_long() -> None:
    clock = Clock()
    withheld = Withheld(clock)
    assert withheld.waits("r1", more=True)
    clock.now += SECONDS / 2
    assert withheld.waits("r1", more=True)
    assert withheld.waits("r2", more=True)
    clock.now += SECONDS / 2
    assert not withheld.waits("r1", more=True)
    # It wasn't delivered: it doesn't begin to wait anew.
    assert not withheld.waits("r1", more=True)
    assert withheld.waits("r2", more=True)
    withheld.forget("r2")
    assert withheld._since.keys() == {"r1"}
