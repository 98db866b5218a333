"""Schedules: one run for each time, whoever looks at the clock and whenever; and jobs of a deployment."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from threading import Barrier, Thread
from typing import Any

import pytest
from django.db import connection, connections
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from cells.specification import tasks
from controlplane.errors import CytoplaneError
from delivery import actions, machine, run_actions, runs, schedules
from delivery.models import Deployment, Replica, Run, Schedule
from projects.models import Cell
from tests import factories
from tests.factories import World
from tests.platform.delivery.test_runs import advance, says
from tests.queue import Queue

CRON = """
components:
  web: {{kind: worker, command: serve}}
  tick: {{schedule: "{schedule}", command: tick{more}}}
"""
JOB = """
components:
  web: {kind: worker, command: serve}
  migrate: {kind: job, command: migrate, retries: %d}
"""


def cron(schedule: str = "*/5 * * * *", **more: object) -> str:
    return CRON.format(schedule=schedule, more="".join(f", {key}: {value}" for key, value in more.items()))


@pytest.fixture
def cell(world: World) -> Cell:
    return served(world, cron())


def served(world: World, text: str) -> Cell:
    made = world.cell()
    world.deploy(made, text)
    return world.cell(made.project)


def due(ago: timedelta = timedelta(seconds=1)) -> Schedule:
    """The schedule, whose time came so long ago."""
    row = Schedule.objects.get()
    row.next_at = timezone.now() - ago
    row.save()
    return row


def test_times_of_a_schedule_are_in_utc_and_after_a_moment() -> None:
    noon = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
    assert tasks.following("0 12 * * *", noon) == noon + timedelta(days=1)
    assert tasks.following("0 12 * * *", noon - timedelta(seconds=1)) == noon
    assert tasks.latest("0 12 * * *", noon) == noon
    assert tasks.latest("0 12 * * *", noon - timedelta(microseconds=1)) == noon - timedelta(days=1)


def test_a_schedule_is_in_force_once_its_release_serves_and_with_it_goes(world: World, cell: Cell) -> None:
    first = Schedule.objects.get()
    assert first.expression == "*/5 * * * *"
    assert timezone.now() < first.next_at <= timezone.now() + timedelta(minutes=5)
    assert not Replica.objects.filter(workload__component__name="tick").exists()
    # The same one: its next time stays, though the release is another.
    Schedule.objects.update(next_at=first.next_at + timedelta(days=1))
    world.deploy(cell, cron())
    assert Schedule.objects.get().next_at == first.next_at + timedelta(days=1)
    world.deploy(cell, cron("0 0 1 1 *"))
    assert Schedule.objects.get().next_at == tasks.following("0 0 1 1 *", timezone.now())
    world.deploy(cell, "components: {web: {kind: worker, command: serve}}")
    assert not Schedule.objects.exists()


def test_a_time_that_came_before_its_schedule_changed_isnt_forgotten(world: World, cell: Cell) -> None:
    row = due(timedelta(seconds=2))
    world.deploy(cell, cron("0 0 29 2 *"))
    assert Schedule.objects.get().expression == "0 0 29 2 *"
    run = schedules.strike(row.pk)
    assert run is not None
    assert run.scheduled_for == row.next_at
    assert schedules.strike(row.pk) is None


def test_missed_times_are_made_up_for_by_one_run_of_the_last(world: World, cell: Cell) -> None:
    row = due(timedelta(hours=5))
    run = schedules.strike(row.pk)
    assert run is not None and run.scheduled_for is not None
    assert timezone.now() - run.scheduled_for < timedelta(minutes=5)
    assert Schedule.objects.get().next_at > timezone.now()
    assert schedules.strike(row.pk) is None
    assert Run.objects.count() == 1
    assert (run.kind, run.created_by, run.words) == ("cron", "schedule", 0)


def test_a_time_that_was_struck_already_is_nobodys_again(world: World, cell: Cell) -> None:
    row = due()
    first = schedules.strike(row.pk)
    assert first is not None
    runs.stop(first, "")
    # As if the other clock had read the row before.
    Schedule.objects.update(next_at=first.scheduled_for)
    assert schedules.strike(row.pk) is None
    assert Run.objects.count() == 1


def test_a_clock_that_was_ahead_keeps_no_schedule_waiting_for_it(world: World, cell: Cell) -> None:
    row = Schedule.objects.get()
    ahead = timezone.now() + timedelta(days=1)
    Schedule.objects.update(next_at=ahead, set_at=ahead - timedelta(minutes=5))
    assert schedules.due() == [row.pk]
    assert schedules.strike(row.pk) is None
    row.refresh_from_db()
    assert timezone.now() < row.next_at <= timezone.now() + timedelta(minutes=5)
    assert schedules.due() == []


def test_two_clocks_at_once_make_one_run(committed_world: World) -> None:
    served(committed_world, cron())
    row = due()
    made: list[Run | None] = []
    barrier = Barrier(4)

    def strike() -> None:
        barrier.wait()
        made.append(schedules.strike(row.pk))
        connections.close_all()

    threads = [Thread(target=strike) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [run is not None for run in made].count(True) == 1
    assert Run.objects.count() == 1


@pytest.mark.parametrize(
    ("concurrency", "states"),
    [
        ("forbid", ["starting", "skipped"]),
        ("replace", ["cancelled", "starting"]),
        ("allow", ["starting", "starting"]),
    ],
)
def test_what_happens_if_the_last_run_still_goes_on(
    world: World, concurrency: str, states: list[str]
) -> None:
    served(world, cron(concurrency=concurrency))
    first = schedules.strike(due(timedelta(minutes=7)).pk)
    assert first is not None and first.scheduled_for is not None
    Run.objects.update(scheduled_for=first.scheduled_for - timedelta(minutes=5))
    assert schedules.strike(due().pk) is not None
    assert list(Run.objects.order_by("pk").values_list("state", flat=True)) == states


def test_what_the_plan_doesnt_allow_or_a_suspended_tenant_would_run_is_skipped_and_says_why(
    world: World, cell: Cell
) -> None:
    type(world.plan).objects.update(replicas=1)
    skipped = schedules.strike(due().pk)
    assert skipped is not None and skipped.state == "skipped"
    assert "plan of acme allows 1 replicas" in skipped.reason
    Run.objects.all().delete()
    type(world.acme).objects.filter(pk=world.acme.pk).update(state="suspended")
    skipped = schedules.strike(due().pk)
    assert skipped is not None and "suspended" in skipped.reason


def test_a_run_that_failed_is_tried_again_as_often_as_declared(world: World, queue: Queue) -> None:
    served(world, cron(retries=1))
    first = schedules.strike(due().pk)
    assert first is not None
    assert says(world, first, "ended", exit_code=1) == "failed"
    # A wake-up that is lost is made up for, and twice makes one.
    assert schedules.failed() == [first.pk]
    second = schedules.again(first.pk)
    assert second is not None
    assert (second.attempt, second.scheduled_for) == (2, first.scheduled_for)
    assert schedules.again(first.pk) is None
    assert says(world, second, "ended", exit_code=1) == "failed"
    assert schedules.again(second.pk) is None
    assert Run.objects.count() == 2


@pytest.mark.parametrize(("concurrency", "again"), [("forbid", False), ("replace", False), ("allow", True)])
def test_another_try_goes_beside_the_next_times_run_only_where_that_is_allowed(
    world: World, concurrency: str, again: bool
) -> None:
    served(world, cron(retries=1, concurrency=concurrency))
    first = schedules.strike(due(timedelta(minutes=7)).pk)
    assert first is not None and first.scheduled_for is not None
    assert says(world, first, "ended", exit_code=1) == "failed"
    Run.objects.update(scheduled_for=first.scheduled_for - timedelta(minutes=5))
    second = schedules.strike(due().pk)
    assert second is not None
    assert (schedules.again(first.pk) is not None) is again
    says(world, second, "ended", exit_code=0)
    assert (schedules.again(first.pk) is None) is again, "it is made up for as soon as it can be"


def test_a_suspended_tenants_run_isnt_tried_again(world: World) -> None:
    served(world, cron(retries=1))
    run = schedules.strike(due().pk)
    assert run is not None
    assert says(world, run, "ended", exit_code=1) == "failed"
    type(world.acme).objects.filter(pk=world.acme.pk).update(state="suspended")
    assert schedules.again(run.pk) is None


def test_what_the_clock_asks_for_isnt_looked_for_among_all_that_have_ended(world: World) -> None:
    served(world, cron())
    when = timezone.now() - timedelta(days=30)
    workload = Schedule.objects.get().workload
    release = workload.cell.serving_release
    Run.objects.bulk_create(
        Run(
            workload=workload,
            release=release,
            kind="cron",
            state="succeeded",
            timeout=1,
            created_by="schedule",
            ended_at=when,
            scheduled_for=when - timedelta(minutes=number),
        )
        for number in range(5000)
    )
    for call, index in ((runs.unfinished, "run_goes_on"), (schedules.failed, "run_of_a_schedule_failed")):
        with CaptureQueriesContext(connection) as asked:
            call()
        with connection.cursor() as cursor:
            cursor.execute("ANALYZE delivery_run")
            cursor.execute(f"EXPLAIN {asked[-1]['sql']}")
            plan = "\n".join(row[0] for row in cursor.fetchall())
        assert index in plan and "Seq Scan on delivery_run " not in plan, plan


def test_what_may_have_run_isnt_tried_again(world: World) -> None:
    served(world, cron(retries=1))
    run = schedules.strike(due().pk)
    assert run is not None
    assert says(world, run, "lost") == "lost"
    assert schedules.failed() == []
    assert schedules.again(run.pk) is None


def test_a_cron_can_be_run_now_and_isnt_scaled(world: World, cell: Cell) -> None:
    run = run_actions.start(acting_user=world.actor("developer"), cell=cell, component="tick")
    assert (run.kind, run.timeout, run.words) == ("once", 3600, 0)
    with pytest.raises(CytoplaneError) as refused:
        actions.scale(acting_user=world.actor(), cell=cell, numbers={"tick": 1})
    assert refused.value.code == "invalid"
    answer = world.api("viewer").get("/tenants/acme/projects/shop/environments/production/schedules").json()
    assert [(row["component"], row["schedule"], row["last"]) for row in answer] == [
        ("tick", "*/5 * * * *", None)
    ]


# Jobs.


def pushed(world: World, cell: Cell, retries: int = 0) -> Deployment:
    deployment = world.push(cell)
    machine.advance(deployment.pk)
    factories.built(deployment, JOB % retries)
    assert machine.advance(deployment.pk) == "starting"
    return deployment


def test_a_job_ends_well_before_anything_of_its_release_starts(world: World) -> None:
    cell = world.cell()
    deployment = pushed(world, cell)
    run = Run.objects.get()
    assert (run.kind, run.state, run.deployment_id) == ("job", "starting", deployment.pk)
    assert not Replica.objects.filter(wanted="run").exists()
    assert machine.advance(deployment.pk) == "starting"
    assert Run.objects.count() == 1
    assert says(world, run, "ended", exit_code=0) == "succeeded"
    world.finish(deployment)
    assert [step.name for step in deployment.steps.all()] == ["build", "jobs", "start", "switch", "drain"]
    assert Run.objects.count() == 1
    # Scaling and going back bring nothing that hasn't run.
    cell = world.cell(cell.project)
    world.finish(actions.scale(acting_user=world.actor(), cell=cell, numbers={"web": 2}))
    assert Run.objects.count() == 1


@pytest.mark.parametrize("end", [{"exit_code": 3}, {"exit_code": 143, "timed_out": True}])
def test_a_job_that_fails_fails_the_deployment_with_its_last_lines(world: World, end: dict[str, Any]) -> None:
    cell = world.cell()
    deployment = pushed(world, cell, retries=1)
    says(world, Run.objects.latest("pk"), "ended", last_lines=["no such table"], **end)
    assert machine.advance(deployment.pk) == "starting", "there is another try"
    again = Run.objects.latest("pk")
    assert again.attempt == 2
    says(world, again, "ended", last_lines=["no such table"], **end)
    assert machine.advance(deployment.pk) == "failed"
    deployment.refresh_from_db()
    assert deployment.error_code == "job-failed"
    assert "no such table" in "".join(deployment.log.values_list("text", flat=True))


def test_going_back_to_what_never_served_runs_its_jobs_first(world: World) -> None:
    cell = world.cell()
    world.deploy(cell)
    failed = pushed(world, cell)
    says(world, Run.objects.get(), "ended", exit_code=3)
    assert machine.advance(failed.pk) == "failed"
    back = actions.rollback(acting_user=world.actor(), cell=cell, number=2)
    assert machine.advance(back.pk) == "starting"
    run = Run.objects.get(deployment=back)
    assert not Replica.objects.filter(wanted="run").exists()
    says(world, run, "ended", exit_code=0)
    world.finish(back)
    # Now it has served.
    world.deploy(cell)
    world.finish(actions.rollback(acting_user=world.actor(), cell=cell, number=3))
    assert Run.objects.filter(kind="job").count() == 2


def test_jobs_for_which_there_is_no_room_wait_for_it(world: World) -> None:
    deployment = world.push(world.cell())
    machine.advance(deployment.pk)
    names = [f"job{number}" for number in range(runs.MOST_AT_ONCE + 1)]
    declared = ", ".join(f"{name}: {{kind: job, command: work}}" for name in names)
    factories.built(deployment, f"components: {{web: {{kind: worker, command: serve}}, {declared}}}")
    for _ in range(2):
        assert machine.advance(deployment.pk) == "starting"
    assert Run.objects.count() == runs.MOST_AT_ONCE
    said = "".join(deployment.log.values_list("text", flat=True))
    assert said.count(f"The job {names[-1]} waits: 5 runs go on") == 1
    says(world, Run.objects.earliest("pk"), "ended", exit_code=0)
    assert machine.advance(deployment.pk) == "starting"
    for run in Run.objects.exclude(state="succeeded"):
        says(world, run, "ended", exit_code=0)
    world.finish(deployment)
    assert Run.objects.filter(state="succeeded").count() == len(names)


def test_a_job_isnt_forgotten_while_its_deployment_goes_on(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "KEPT", 0)
    deployment = pushed(world, world.cell())
    run = Run.objects.get()
    says(world, run, "ended", exit_code=0)
    Run.objects.filter(pk=run.pk).update(replica=None, created_at=timezone.now() - timedelta(hours=1))
    runs.forget(run.workload)
    machine.advance(deployment.pk)
    assert Run.objects.count() == 1, "it has run"
    Deployment.objects.update(state="failed")
    runs.forget(run.workload)
    assert not Run.objects.exists()


def test_a_deployment_that_is_cancelled_ends_its_job(world: World) -> None:
    deployment = pushed(world, world.cell())
    actions.cancel(acting_user=world.actor(), deployment=deployment)
    assert machine.advance(deployment.pk) == "cancelled"
    run = Run.objects.get()
    assert (run.state, run.replica) == ("cancelled", None)
    assert advance(run) == "cancelled"


def test_a_job_of_a_deployment_isnt_cancelled_by_itself(world: World) -> None:
    deployment = pushed(world, world.cell())
    with pytest.raises(CytoplaneError) as refused:
        run_actions.cancel(acting_user=world.actor(), cell=deployment.cell, run=Run.objects.get())
    assert refused.value.code == "conflict"
