"""How many replicas there should be for what was measured. A pure function: no clock, no database.

It aims at a target: with twice the load that each replica should have, there are twice as many. Up goes at
once, at most to double within a minute; down only after five minutes in which nothing asked for more, nothing
was missing and nothing went up. A replica that nothing is known of counts as idle where more are asked for
and as busy where fewer are: what isn't known never takes a replica away.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from cells.specification import Scaling

#: Load so near to the target changes nothing.
TOLERANCE = 0.1
#: Seconds for which the highest recommendation counts when replicas are taken away.
CALM = 300.0
#: Within so many seconds the number at most doubles.
UP_SECONDS, UP_FACTOR = 60.0, 2
#: Looks that are farther apart say nothing about the time between them.
LONGEST_GAP = 60.0
#: Floats that say one replica less than their sum does.
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Look:
    """What was at a moment (seconds): the number of replicas, and how many were recommended."""

    at: float
    number: int
    wanted: int


@dataclass(frozen=True)
class Load:
    """What each serving replica does, in percent of its CPU limit and in requests a second; None: not known."""

    cpu: tuple[float | None, ...] = ()
    requests: tuple[float | None, ...] = ()


@dataclass(frozen=True)
class Decision:
    """``number``: how many there should be now; ``wanted``: what the load alone would have; ``why`` names the
    figure that decided; ``held``: why ``number`` isn't ``wanted``, "" if it is."""

    number: int
    wanted: int
    why: str
    held: str = ""


@dataclass(frozen=True)
class _Asked:
    """What one figure asks for."""

    number: int
    why: str
    missing: int


def mean(values: Sequence[float | None]) -> float | None:
    """Of what is known; None if nothing is."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _ask(values: Sequence[float | None], target: float, what: str) -> _Asked:
    number = len(values)
    known = [value for value in values if value is not None]
    missing = number - len(known)
    average = mean(values)
    if average is None:
        return _Asked(number, f"{what.format('not known')}", missing)
    why = f"{what.format(f'{average:.3g}')}, {target:g} wanted"
    ratio = sum(known) / (number * target)
    enough = max(1, math.ceil(sum(known) / target - _ROUNDING))
    if ratio > 1 + TOLERANCE or (ratio < 1 - TOLERANCE and not missing):
        return _Asked(enough, why, missing)
    return _Asked(number, why, missing)


def decide(scaling: Scaling, load: Load, history: Sequence[Look], now: float) -> Decision:
    """The number for this moment. ``history``: looks before this one, oldest first; any may be missing.

    The replicas are those that ``load`` has an entry for, in each figure that counts.
    """
    asked = []
    if scaling.cpu:
        asked.append(_ask(load.cpu, scaling.cpu, "CPU {} % of the limit"))
    if scaling.requests:
        asked.append(_ask(load.requests, scaling.requests, "requests {} a second and replica"))
    number = len(load.cpu if scaling.cpu else load.requests)
    if not number:
        return Decision(scaling.least, scaling.least, "no replica serves")
    most = max(asked, key=lambda each: each.number)
    wanted = min(max(most.number, scaling.least), scaling.most)
    held = ""
    if most.number > scaling.most:
        held = f"the load is one for {most.number}; {scaling.most} is the most"
    if number < scaling.least or number > scaling.most:
        return Decision(wanted, wanted, most.why, held)
    if wanted > number:
        return _up(wanted, number, most.why, held, history, now)
    missing = max(each.missing for each in asked)
    if missing:
        text = f"nothing is known of {missing} of {number} replicas"
        return Decision(number, wanted, most.why, text)
    if wanted < number:
        return _down(wanted, number, most.why, history, now)
    return Decision(number, wanted, most.why, held)


def _up(wanted: int, number: int, why: str, held: str, history: Sequence[Look], now: float) -> Decision:
    lately = [look.number for look in history if now - UP_SECONDS < look.at <= now]
    most = UP_FACTOR * max(1, min([number, *lately]))
    if wanted <= most:
        return Decision(wanted, wanted, why, held)
    text = f"{wanted} are wanted; the number at most doubles within a minute"
    return Decision(max(number, most), wanted, why, text)


def _down(wanted: int, number: int, why: str, history: Sequence[Look], now: float) -> Decision:
    window = [look for look in history if now - CALM - LONGEST_GAP <= look.at <= now]
    times = [look.at for look in window] + [now]
    gaps = [later - earlier for earlier, later in zip(times, times[1:], strict=False)]
    watched = times[0] <= now - CALM and max(gaps, default=0.0) <= LONGEST_GAP
    inside = [look for look in window if look.at >= now - CALM]
    if not watched or any(look.number < number for look in inside):
        text = f"{wanted} would do; it has to stay so for five minutes"
        return Decision(number, wanted, why, text)
    highest = max([wanted, *(look.wanted for look in inside)])
    if highest >= number:
        text = f"{wanted} would do; within five minutes more were needed"
        return Decision(number, wanted, why, text)
    held = "" if highest == wanted else f"{wanted} would do; within five minutes {highest} were needed"
    return Decision(highest, wanted, why, held)


def remembered(history: Sequence[Look], look: Look) -> list[Look]:
    """The history with one look more, without what no decision needs any more."""
    return [each for each in history if each.at > look.at - CALM - LONGEST_GAP and each.at <= look.at][
        -200:
    ] + [look]
