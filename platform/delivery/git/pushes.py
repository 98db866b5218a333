"""What a push means: which cell it deploys, and how its verdict is reached."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from django.utils import timezone

from controlplane.errors import CytoplaneError
from delivery import actions, offline, tasks
from delivery.git import repository, storage
from delivery.models import Deployment, LogChunk, Push
from projects.models import Cell, Project
from tenants.policy import Actor

State = Deployment.State
#: New requests reach the new release from here on.
SERVING = (State.DRAINING, State.LIVE)


@dataclass
class Received:
    """A push that git has received and that waits in its quarantine."""

    actor: Actor
    project: Project
    #: Set where the push deploys something.
    deployment: int | None = None
    seen: int = 0
    messages: list[str] = field(default_factory=list)


def begin(
    received: Received,
    updates: list[list[str]],
    objects: str,
    alternates: str,
    options: Sequence[str] = (),
) -> None:
    """Check the updated refs, keep what must outlive the quarantine, and start the deployment.

    Raises an error of the catalogue; then nothing was changed.
    """
    waits = offline.option(list(options))
    path = repository.repository_of(received.project)
    quarantine = {"GIT_OBJECT_DIRECTORY": objects, "GIT_ALTERNATE_OBJECT_DIRECTORIES": alternates}
    # A push that only deletes brings no objects, so git makes no quarantine for it.
    brings = any(new != repository.ZERO for _, new, _ in updates)
    if brings and not _is_quarantine(objects, str(path)):
        raise CytoplaneError("source-rejected", reason="it didn't arrive as a push")
    if brings:
        _fits(received.project, path)
    cells = {
        cell.environment.branch: cell
        for cell in Cell.objects.filter(project=received.project).select_related(
            "project__tenant", "environment__plane"
        )
    }
    deploying = []
    for old, new, ref in updates:
        if not ref.startswith("refs/heads/"):
            raise CytoplaneError(
                "source-rejected", reason=f"`{ref[:80]}` isn't a branch; only branches are accepted"
            )
        branch = ref.removeprefix("refs/heads/")
        if branch in cells and new == repository.ZERO:
            raise CytoplaneError("source-rejected", reason=f"`{branch}` deploys and can't be deleted")
        if branch in cells:
            deploying.append((cells[branch], branch, old, new))
        elif new != repository.ZERO:
            names = " and ".join(f"`{name}`" for name in cells)
            received.messages.append(f"-----> `{branch}` is kept but deploys nothing; {names} do.\n")
    if len(deploying) > 1:
        raise CytoplaneError("source-rejected", reason="a push deploys one branch at a time")
    for cell, branch, old, new in deploying:
        archive = repository.store(path, new, quarantine)
        try:
            repository.keep(path, new, archive, quarantine)
            deployment = actions.start_push(
                acting_user=received.actor,
                cell=cell,
                branch=branch,
                old=old,
                new=new,
                summary=repository.summary(path, new, quarantine),
                archive=archive,
                waits=waits,
            )
        except Exception:
            repository.forget(received.project, archive)
            raise
        received.deployment = deployment.pk


def _fits(project: Project, path: Path) -> None:
    """Raise `quota` if the repository is full; what packing may save is there for the next push."""
    try:
        storage.check(project, path)
    except CytoplaneError:
        tasks.pack_repository.enqueue(project.pk)
        raise


def _is_quarantine(objects: str, path: str) -> bool:
    """git makes it below the repository's objects."""
    return objects.startswith(f"{path}/objects/") and ".." not in objects


def follow(received: Received) -> tuple[str, str | None]:
    """(new text of the log, verdict or None while it is open). Marks the push as attached."""
    number = received.deployment
    deployment = Deployment.objects.get(pk=number)
    Push.objects.filter(deployment_id=number).update(attached_at=timezone.now())
    chunks = list(LogChunk.objects.filter(deployment_id=number, pk__gt=received.seen).order_by("pk"))
    if chunks:
        received.seen = chunks[-1].pk
    text = "".join(chunk.text for chunk in chunks)
    if deployment.state in SERVING:
        return text, _claim(deployment)
    if deployment.state in Deployment.ENDED:
        return text, "decline"
    return text, None


def _claim(deployment: Deployment) -> str:
    """This side moves the branch, unless a worker already did."""
    claimed = Push.objects.filter(deployment=deployment, moved_by=Push.Mover.NOBODY).update(
        moved_by=Push.Mover.CLIENT
    )
    return "accept" if claimed else "decline"
