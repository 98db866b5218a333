"""What people may do with runs: start one, cancel one."""

from __future__ import annotations

from django.db import transaction

from cells.specification import Specification
from cells.specification.tasks import LONGEST, SHORTEST
from controlplane.errors import CytoplaneError
from dataplane.planes import presence
from delivery import runs
from delivery.models import Run
from delivery.serving import locked_cell, serving_release
from projects.models import Cell
from tenants import audit
from tenants.policy import Actor, authorise

#: Words of a command and characters of them all.
MOST_WORDS, LONGEST_COMMAND = 256, 16384
#: Seconds that a run may take where nobody says.
USUAL = 3600


@transaction.atomic
def start(
    *, acting_user: Actor, cell: Cell, component: str, words: list[str] | None = None, timeout: int = 0
) -> Run:
    """Run a command once with image, configuration and identity of a component of the serving release.

    Without words, what the component itself runs, which only one of kind cron or job can end with. The
    audit event has the first word and their number: the others may be secret.
    """
    tenant = cell.project.tenant
    authorise(acting_user, "deploy", tenant)
    cell = locked_cell(cell.pk)
    release = serving_release(cell)
    declared = Specification.from_dict(release.specification).components.get(component)
    if declared is None:
        raise CytoplaneError("not-found", kind="component")
    words = list(words or ())
    _judge(words, timeout)
    if not words and declared.task is None:
        raise CytoplaneError(
            "invalid",
            field="command",
            message=f"`{component}` is a {declared.kind}, which doesn't end by itself: say what to run in it.",
        )
    plane = cell.environment.plane
    if plane is not None and (since := presence.gone_since(plane)) is not None:
        raise CytoplaneError("plane-offline", plane=plane.name, since=since.strftime("%Y-%m-%d %H:%M:%S UTC"))
    run = runs.begin(
        cell,
        release,
        component,
        kind=Run.Kind.ONCE,
        created_by=acting_user.name,
        words=words,
        timeout=timeout or (declared.task.timeout if declared.task else USUAL),
    )
    audit.record(
        acting_user,
        "run.start",
        run,
        tenant=tenant,
        name=f"{cell} {component}",
        changes={"program": run.program, "words": run.words, "release": release.number},
    )
    return run


def _judge(words: list[str], timeout: int) -> None:
    if len(words) > MOST_WORDS or sum(map(len, words)) > LONGEST_COMMAND:
        raise CytoplaneError(
            "invalid",
            field="command",
            message=f"A command has at most {MOST_WORDS} words and {LONGEST_COMMAND} characters.",
        )
    if words and not words[0].strip():
        raise CytoplaneError("invalid", field="command", message="The first word names a program.")
    if any("\0" in word or word.encode(errors="replace").decode() != word for word in words):
        raise CytoplaneError(
            "invalid", field="command", message="A word holds what no program could be given."
        )
    if timeout and not SHORTEST <= timeout <= LONGEST:
        raise CytoplaneError(
            "invalid", field="timeout", message=f"A run may take {SHORTEST} to {LONGEST} seconds."
        )


@transaction.atomic
def cancel(*, acting_user: Actor, cell: Cell, run: Run) -> Run:
    """End a run that goes on: its process is asked to, then made to."""
    tenant = cell.project.tenant
    authorise(acting_user, "deploy", tenant)
    row = Run.objects.select_for_update(of=("self",)).get(pk=run.pk)
    if row.state not in Run.ACTIVE:
        raise CytoplaneError("conflict", message=f"The run is {row.state}; it can't be cancelled any more.")
    if row.kind == Run.Kind.JOB:
        raise CytoplaneError(
            "conflict", message="It is a part of a deployment: cancel that, `cyto deployments`."
        )
    runs.stop(row, f"Cancelled by {acting_user.name}.")
    audit.record(acting_user, "run.cancel", row, tenant=tenant, name=str(cell))
    row.refresh_from_db()
    return row
