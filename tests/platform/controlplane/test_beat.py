"""The lease of who gives out periodic tasks."""

from __future__ import annotations

import time
from datetime import timedelta

import pytest
from django.conf import settings

from controlplane import alive, beat
from controlplane.beat import LEASE_KEY, Lease, LeasedScheduler
from controlplane.celery import app
from tests.queue import Queue
from tests.services import Services


def test_one_holds_it_and_the_other_waits_until_it_is_given_back(installation: Services) -> None:
    first, second = Lease("first"), Lease("second")
    assert first.hold() is True
    assert second.hold() is False
    assert first.hold() is True
    second.release()
    assert second.hold() is False, "what somebody else holds can't be released"
    first.release()
    assert second.hold() is True


def test_it_ends_by_itself_when_nothing_is_heard_of_its_holder(installation: Services) -> None:
    client = installation.redis()
    assert Lease("gone").hold()
    assert 0 < client.pttl(LEASE_KEY) <= beat.LEASE_SECONDS * 1000
    client.pexpire(LEASE_KEY, 1)
    while client.exists(LEASE_KEY):
        pass
    assert Lease("next").hold() is True


def test_who_starts_anew_goes_on_with_what_it_held(installation: Services) -> None:
    assert Lease("pod-1").hold()
    assert Lease("pod-1").hold() is True


def test_without_redis_nobody_knows() -> None:
    assert Lease("somebody", "redis://127.0.0.1:1/0").hold() is None


def test_only_the_holder_gives_tasks_out(queue: Queue, tmp_path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    (settings.CONFIG.run / "web").mkdir(parents=True, exist_ok=True)
    alive.file_of("beat").unlink(missing_ok=True)
    monkeypatch.setitem(app.conf.beat_schedule, "pulse", {"task": "controlplane.pulse", "schedule": 0.0})
    scheduler = LeasedScheduler(app, schedule_filename=str(tmp_path / "beat"))
    other = Lease("another-pod")
    assert other.hold()
    assert scheduler.tick() == beat.ASK_SECONDS
    assert not queue.waiting("controlplane.pulse")
    assert alive.file_of("beat").exists(), "one that waits is alive as well"
    other.release()
    scheduler.tick()
    assert queue.waiting("controlplane.pulse")
    scheduler.close()
    assert other.hold() is True, "a beat that ends lets the next one begin at once"


def test_a_clock_that_is_set_back_keeps_nothing_from_being_given_out(
    queue: Queue, tmp_path, monkeypatch
) -> None:  # type: ignore[no-untyped-def]
    (settings.CONFIG.run / "web").mkdir(parents=True, exist_ok=True)
    monkeypatch.setitem(app.conf.beat_schedule, "pulse", {"task": "controlplane.pulse", "schedule": 0.1})
    scheduler = LeasedScheduler(app, schedule_filename=str(tmp_path / "beat"))
    # As it was told by a clock two hours ahead.
    scheduler.schedule["pulse"].last_run_at += timedelta(hours=2)
    scheduler._looked_at = time.time() + 7200
    for _ in range(4):
        scheduler.tick()
        time.sleep(0.1)
    assert queue.waiting("controlplane.pulse")
    scheduler.close()


def test_a_beat_without_redis_says_nothing_of_being_alive(tmp_path, monkeypatch, installation) -> None:  # type: ignore[no-untyped-def]
    alive.file_of("beat").unlink(missing_ok=True)
    monkeypatch.setattr(settings, "REDIS_URL", "redis://127.0.0.1:1/0")
    scheduler = LeasedScheduler(app, schedule_filename=str(tmp_path / "beat"))
    scheduler.tick()
    assert not alive.file_of("beat").exists()


@pytest.mark.parametrize("part", ["worker", "beat"])
def test_a_disk_that_takes_nothing_ends_nobody(part: str, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(alive, "file_of", lambda part: settings.CONFIG.home / "missing" / part)
    alive.touch(part)
