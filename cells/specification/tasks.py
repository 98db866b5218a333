"""What ends by itself: components of kind cron and job, and the times of a schedule."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from cronsim import CronSim, CronSimError

from cells.specification.model import CONCURRENCIES, TASKS, SpecificationError, Task
from cells.specification.values import choice, number

#: Seconds that a run may take: at least, where nobody says, at most.
SHORTEST, USUAL, LONGEST = 1, 3600, 86400
MOST_RETRIES = 10
_KEYS = ("schedule", "concurrency", "timeout", "retries")
#: What only makes sense for what goes on running.
_LASTING = {"endpoints": {}, "replicas": 0}
_LONGEST_SCHEDULE = 100
_DURATION = re.compile(r"([0-9]{1,6})(s|m|h)?\Z")
_SECONDS = {None: 1, "s": 1, "m": 60, "h": 3600}


def task(raw: Mapping[str, Any], kind: str, where: str) -> Task | None:
    """How a component runs that ends by itself; None of any other kind. Raises ``SpecificationError``."""
    if kind not in TASKS:
        found = next((key for key in _KEYS if raw.get(key) is not None), None)
        if found:
            raise SpecificationError(
                f"`{found}` is for components of kind cron or job.", "kind: cron", f"{where}.{found}"
            )
        return None
    for key, nothing in _LASTING.items():
        if raw.get(key) not in (None, nothing):
            raise SpecificationError(
                f"a component of kind {kind} has no `{key}`: it runs and ends.",
                "Remove it, or choose another kind.",
                f"{where}.{key}",
            )
    if raw.get("health") and _checks(raw["health"]):
        raise SpecificationError(
            f"a component of kind {kind} isn't checked: its exit code says how it went.",
            "Remove `health`.",
            f"{where}.health",
        )
    if kind == "job" and raw.get("schedule"):
        raise SpecificationError("a job has no schedule.", "kind: cron", f"{where}.schedule")
    return Task(
        schedule=_schedule(raw.get("schedule"), f"{where}.schedule") if kind == "cron" else "",
        concurrency=choice(raw.get("concurrency", "forbid"), CONCURRENCIES, f"{where}.concurrency"),
        timeout=seconds(raw.get("timeout", USUAL), f"{where}.timeout"),
        retries=number(raw.get("retries", 0), 0, MOST_RETRIES, f"{where}.retries", int),
    )


def _checks(health: Any) -> bool:
    return not isinstance(health, dict) or health.get("type") != "none"


def seconds(value: Any, where: str) -> int:
    """Seconds of ``90``, ``90s``, ``10m`` or ``2h``."""
    match = _DURATION.match(str(value)) if not isinstance(value, bool) else None
    found = int(match[1]) * _SECONDS[match[2]] if match else 0
    if not SHORTEST <= found <= LONGEST:
        raise SpecificationError(f"`{value}` isn't a time from 1s to 24h.", "timeout: 10m", where)
    return found


def _schedule(value: Any, where: str) -> str:
    hint = 'schedule: "*/5 * * * *" (minute, hour, day of the month, month, day of the week; UTC)'
    if value is None:
        raise SpecificationError("a component of kind cron needs a schedule.", hint, where)
    text = " ".join(value.split()) if isinstance(value, str) else ""
    if len(text.split()) != 5 or len(text) > _LONGEST_SCHEDULE or not text.isascii():
        raise SpecificationError("a schedule has five fields.", hint, where)
    try:
        following(text, datetime(2026, 1, 1, tzinfo=UTC))
    except CronSimError as error:
        raise SpecificationError(f"`{text}` isn't a schedule: {error}.", hint, where) from None
    except StopIteration:
        raise SpecificationError(f"`{text}` never comes.", hint, where) from None
    return text


def following(schedule: str, after: datetime) -> datetime:
    """The first time of a schedule after a moment, in UTC."""
    return next(CronSim(schedule, after.astimezone(UTC)))


def latest(schedule: str, until: datetime) -> datetime:
    """The last time of a schedule that isn't after a moment, in UTC."""
    # What counts backwards leaves out where it begins.
    begin = until.astimezone(UTC).replace(microsecond=0) + timedelta(seconds=1)
    return next(CronSim(schedule, begin, reverse=True))
