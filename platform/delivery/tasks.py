"""What workers do for deployments. Every task may run twice and may be late."""

from __future__ import annotations

from datetime import timedelta

from django.utils import timezone

from controlplane.celery import app
from delivery import machine, runs, schedules
from delivery.git import leftovers, repository, storage
from delivery.models import Deployment, Push
from projects import hosts
from projects.models import Project

ATTACHED = timedelta(seconds=8)
#: Long after who pushed, or who was woken at the end, would have moved a branch.
UNMOVED = timedelta(minutes=1)


@app.task(name="delivery.advance")
def advance(deployment_id: int) -> None:
    """Take the deployment's next steps."""
    state = machine.advance(deployment_id)
    if state == Deployment.State.DRAINING:
        advance.apply_async((deployment_id,), countdown=machine.DRAIN.total_seconds() + 0.1)


@app.task(name="delivery.run")
def run(run_id: int) -> None:
    """Take a run's next steps."""
    runs.advance(run_id)


@app.task(name="delivery.strike")
def strike(schedule_id: int) -> None:
    """Make the run of a schedule whose time has come."""
    schedules.strike(schedule_id)


@app.task(name="delivery.again")
def again(run_id: int) -> None:
    """Make the next try of a run that failed."""
    schedules.again(run_id)


@app.task(name="delivery.clock")
def clock() -> None:
    """Look at the clock: schedules whose time has come, and runs whose wake-up may have been lost."""
    for pk in schedules.due():
        strike.apply_async((pk,))
    for pk in schedules.failed():
        again.apply_async((pk,))
    for pk in runs.unfinished():
        run.apply_async((pk,))


@app.task(name="delivery.sweep")
def sweep() -> None:
    """Look at everything that is underway: a wake-up may have been lost with a worker or with Redis."""
    for pk in Deployment.objects.exclude(state__in=Deployment.ENDED).values_list("pk", flat=True):
        advance.apply_async((pk,))
    for pk in _unmoved():
        finish_push.apply_async((pk,))
    hosts.give_back()
    leftovers.forget_sources()


def _unmoved() -> list[int]:
    """Deployments that serve and whose branch nobody has moved for long: the wake-up may have been lost."""
    left = Push.objects.filter(moved_by=Push.Mover.NOBODY, deployment__state=Deployment.State.LIVE)
    return list(
        left.filter(attached_at__lt=timezone.now() - UNMOVED).values_list("deployment", flat=True)[:100]
    )


@app.task(name="delivery.finish_push")
def finish_push(deployment_id: int) -> None:
    """Move the branch of a push whose client is gone: exactly one side does, by a claim on the row."""
    push = (
        Push.objects.select_related("deployment__cell__project").filter(deployment_id=deployment_id).first()
    )
    if push is None or push.moved_by != Push.Mover.NOBODY:
        return
    if push.attached_at and timezone.now() - push.attached_at < ATTACHED:
        finish_push.apply_async((deployment_id,), countdown=5)
        return
    claimed = Push.objects.filter(pk=push.pk, moved_by=Push.Mover.NOBODY).update(moved_by=Push.Mover.WORKER)
    if claimed:
        repository.move_branch(push.deployment.cell.project, push.branch, push.new_commit, push.old_commit)


@app.task(name="delivery.remove_repository")
def remove_repository(tenant_id: int, project_id: int) -> None:
    """Delete the repository of a project that was destroyed."""
    repository.remove(tenant_id, project_id)


@app.task(name="delivery.pack_repository")
def pack_repository(project_id: int) -> None:
    """Pack a repository that is full."""
    project = Project.objects.filter(pk=project_id).first()
    if project is not None:
        storage.pack(repository.repository_of(project))


@app.task(name="delivery.pack_repositories")
def pack_repositories() -> None:
    """Pack repositories again that pushes have scattered, in another order each time."""
    leftovers.remove_strangers()
    storage.pack_scattered(Project.objects.order_by("?").iterator())
