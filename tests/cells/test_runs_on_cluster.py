"""Runs, schedules and jobs on a cluster whose pods really run: made at most once, their ends told by the API."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable
from datetime import timedelta

import pytest
from django.utils import timezone

from cells.provisioning.models import Place
from delivery import run_actions, runs
from delivery.models import Deployment, LogChunk, Replica, Run, Schedule
from projects.models import Cell
from tests.cells.test_workloads import Delivery, delivery, world
from tests.cluster import LONGEST

__all__ = ["delivery", "world"]

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(LONGEST)]

JOBS = """
components:
  web:
    kind: worker
    command: exec sleep 100000
    limits: {{memory: 32, cpu: 0.1}}
  tick:
    schedule: "* * * * *"
    command: echo ticked by $CYTOPLANE_COMPONENT; exit 4
    limits: {{memory: 32, cpu: 0.1}}
  migrate:
    kind: job
    command: echo migrated {word}; exit {code}
    limits: {{memory: 32, cpu: 0.1}}
"""


def until(delivery: Delivery, run: Run, true: Callable[[Run], object], seconds: float = 60) -> Run:
    """Let workers work until something is true of the run."""
    end = time.monotonic() + seconds
    while True:
        runs.advance(run.pk)
        run.refresh_from_db()
        if true(run):
            return run
        problems = list(Place.objects.values_list("state", "problems"))
        assert time.monotonic() < end, (run.state, run.reason, delivery.pods(), problems)
        delivery.swept()
        time.sleep(0.3)


def start(delivery: Delivery, cell: Cell, *words: str) -> Run:
    actor = delivery.world.actor("developer")
    return run_actions.start(acting_user=actor, cell=cell, component="web", words=list(words))


def pods(delivery: Delivery, cell: Cell) -> set[str]:
    return set(delivery.nodes.pods(Place.objects.get(cell=cell, wanted=True).location))


def kept_by_helm(delivery: Delivery, place: Place) -> str:
    """All that Helm's records of the place say, unpacked as far as base64 goes."""
    with delivery.nodes.client() as client:
        found = client.document("/api/v1/namespaces/cytoplane-releases/secrets")["items"]
    import zlib

    text = ""
    for item in found:
        if (item["metadata"].get("labels") or {}).get("name") == place.location:
            packed = base64.b64decode(base64.b64decode(item["data"]["release"]))
            text += zlib.decompress(packed, zlib.MAX_WBITS | 16).decode()
    return text


@pytest.mark.capability("one-off", "kubernetes-shared")
@pytest.mark.capability("jobs", "kubernetes-shared")
@pytest.mark.capability("cron", "kubernetes-shared")
def test_what_runs_once_runs_once(delivery: Delivery) -> None:
    cell = delivery.world.cell()
    deployment = delivery.until(
        delivery.push(cell, JOBS.format(word="well", code=0)), "live", "failed", seconds=120
    )
    assert deployment.state == "live", deployment.error
    migrated = Run.objects.get(kind="job")
    assert (migrated.state, migrated.exit_code, migrated.last_lines) == ("succeeded", 0, ["migrated well"])
    assert [s.name for s in deployment.steps.all()] == ["build", "jobs", "start", "switch", "drain"]
    cell = delivery.world.cell(cell.project)
    # A run: its words are in no record, its code and last lines are known, and its pod goes.
    ran = start(delivery, cell, "sh", "-c", "echo $0 $CYTOPLANE_COMPONENT; exit 7", "s3cret")
    until(delivery, ran, lambda run: run.ended_at)
    assert (ran.state, ran.exit_code, ran.last_lines) == ("failed", 7, ["s3cret web"])
    assert "s3cret" not in kept_by_helm(delivery, Place.objects.get(cell=cell))
    Run.objects.update(ended_at=timezone.now() - runs.LINGER)
    until(delivery, ran, lambda run: f"r{run.replica_number}" not in pods(delivery, cell))
    # A program that isn't there.
    nothing = until(delivery, start(delivery, cell, "no-such-program"), lambda run: run.ended_at)
    assert (nothing.state, nothing.exit_code) == ("failed", 127)
    # Somebody takes its pod away: it is lost, and nothing starts it again.
    long = start(delivery, cell, "sleep", "1000")
    until(delivery, long, lambda run: run.state == "running")
    place = Place.objects.get(cell=cell, wanted=True)
    with delivery.nodes.client() as client:
        client.remove(f"/api/v1/namespaces/{place.location}/pods/r{long.replica_number}?gracePeriodSeconds=0")
    # Workers repair before anybody hears of it.
    Place.objects.update(asked=place.asked + 1)
    until(delivery, long, lambda run: run.ended_at)
    assert (long.state, long.exit_code) == ("lost", None)
    assert f"r{long.replica_number}" not in pods(delivery, cell)
    # Cancelled.
    other = start(delivery, cell, "sleep", "1000")
    until(delivery, other, lambda run: run.state == "running")
    run_actions.cancel(acting_user=delivery.world.actor("developer"), cell=cell, run=other)
    until(delivery, other, lambda run: f"r{run.replica_number}" not in pods(delivery, cell))
    # It is time for the cron.
    Schedule.objects.update(next_at=timezone.now() - timedelta(seconds=1))
    from delivery import schedules

    (due,) = schedules.due()
    ticked = schedules.strike(due)
    assert ticked is not None and schedules.strike(due) is None
    until(delivery, ticked, lambda run: run.ended_at)
    assert (ticked.state, ticked.exit_code, ticked.last_lines) == ("failed", 4, ["ticked by tick"])
    # A job that fails, fails its deployment, and what served still serves.
    failed = delivery.until(
        delivery.push(cell, JOBS.format(word="badly", code=5)), "live", "failed", seconds=120
    )
    assert (failed.state, failed.error_code) == ("failed", "job-failed")
    said = "".join(LogChunk.objects.filter(deployment=failed).values_list("text", flat=True))
    assert "migrated badly" in said
    assert Replica.objects.filter(wanted="serve").count() == 1
    assert json.dumps(failed.error) and Deployment.objects.count() == 2
