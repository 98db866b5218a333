"""Whether a push that waited may still move its branch, told before it is built rather than after it serves."""

from __future__ import annotations

from controlplane.errors import CytoplaneError
from delivery.git import repository
from delivery.models import Deployment, Push

State = Deployment.State


def check(deployment: Deployment) -> None:
    """Raise ``branch-moved`` if another push of the branch went first.

    A push that serves owns the branch even if its client was lost before it moved it: that is made up
    for here, so that what was pushed meanwhile is compared with what is true.
    """
    push = Push.objects.filter(deployment=deployment).first()
    if push is None:
        return
    project = deployment.cell.project
    before = (
        Push.objects.filter(
            deployment__cell=deployment.cell_id,
            branch=push.branch,
            deployment__state__in=[State.DRAINING, State.LIVE],
        )
        .order_by("-deployment_id")
        .first()
    )
    head = repository.head(project, push.branch)
    if before is not None and head == before.old_commit and head != before.new_commit:
        Push.objects.filter(pk=before.pk, moved_by=Push.Mover.NOBODY).update(moved_by=Push.Mover.WORKER)
        repository.move_branch(project, before.branch, before.new_commit, before.old_commit)
        head = repository.head(project, push.branch)
    if head != push.old_commit:
        raise CytoplaneError("branch-moved", branch=push.branch)
