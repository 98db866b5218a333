"""Components of kind job: they run once in each deployment of new code or configuration, before anything starts.

One that fails, fails the deployment; what served still serves. Scaling runs none, and going back only those of
a release that never served: what did has run them already.
"""

from __future__ import annotations

from django.utils import timezone

from cells.specification import Specification
from controlplane.errors import CytoplaneError
from delivery import log, runs
from delivery.models import Deployment, DeploymentStep, Release, Run
from delivery.serving import locked_cell

#: Kinds of deployments that bring something for the first time here.
FRESH = (Deployment.Kind.PUSH, Deployment.Kind.CONFIG, Deployment.Kind.PROMOTION)
#: Of deployments whose release serves or did.
SWITCHED = (Deployment.State.SWITCHING, Deployment.State.DRAINING, Deployment.State.LIVE)
STEP = "jobs"


def done(deployment: Deployment, release: Release) -> bool:
    """Whether the release's jobs have ended well; those that haven't begun do. Raises `job-failed`."""
    names = _names(release) if _fresh(deployment, release) else []
    if not names:
        return True
    newest: dict[str, Run] = {}
    for run in (
        Run.objects.filter(deployment=deployment).select_related("workload__component").order_by("attempt")
    ):
        newest[run.workload.component.name] = run
    for name in names:
        if name not in newest:
            _begin(deployment, release, name, 1)
    for name, run in newest.items():
        if run.state in (*Run.ACTIVE, Run.State.SUCCEEDED):
            continue
        task = runs.component_of(release, name).task
        if run.state not in runs.AGAIN or task is None or run.attempt > task.retries:
            raise _failed(deployment, name, run)
        _begin(deployment, release, name, run.attempt + 1)
    if set(newest) != set(names) or any(run.state != Run.State.SUCCEEDED for run in newest.values()):
        return False
    _step_over(deployment)
    return True


def _fresh(deployment: Deployment, release: Release) -> bool:
    """Whether it brings something whose jobs haven't run here, as going back to what failed does."""
    if deployment.kind != Deployment.Kind.ROLLBACK:
        return deployment.kind in FRESH
    old = release.rolled_back_from
    while old is not None:
        if old.deployments.filter(state__in=SWITCHED).exists():
            return False
        old = old.rolled_back_from
    return True


def _names(release: Release) -> list[str]:
    declared = Specification.from_dict(release.specification).components
    return sorted(name for name, component in declared.items() if component.kind == "job")


def _begin(deployment: Deployment, release: Release, name: str, attempt: int) -> None:
    cell = locked_cell(deployment.cell_id)
    try:
        runs.begin(
            cell,
            release,
            name,
            kind=Run.Kind.JOB,
            created_by=deployment.created_by,
            deployment=deployment,
            attempt=attempt,
        )
    except CytoplaneError as error:
        if error.code not in runs.FULL:
            raise
        # Those that go on end, perhaps this deployment's own; the sweep looks again.
        text = f"The job {name} waits: {error.message}"
        if not deployment.log.filter(text__contains=text).exists():
            log.say(deployment, text)
        return
    log.say(deployment, f"Running the job {name}" + (f", try {attempt}" if attempt > 1 else ""))
    step = deployment.steps.filter(ended_at=None).first()
    if step is not None and step.name != STEP:
        step.name = STEP
        step.save(update_fields=["name"])


def _step_over(deployment: Deployment) -> None:
    """What starts now has its whole time."""
    step = deployment.steps.filter(ended_at=None, name=STEP)
    if step.update(ended_at=timezone.now(), ok=True):
        deployment.state_since = timezone.now()
        DeploymentStep.objects.create(deployment=deployment, name="start")
        log.say(deployment, "The jobs are done")


def _failed(deployment: Deployment, name: str, run: Run) -> CytoplaneError:
    reason = run.reason or f"its process ended with code {run.exit_code}."
    return CytoplaneError("job-failed", component=name, reason=reason)


def stop(deployment: Deployment) -> None:
    """The deployment fails: what still goes on of its jobs ends, and what they wrote last is told."""
    for run in Run.objects.filter(deployment=deployment).select_related("workload__component"):
        if run.state in Run.ACTIVE:
            runs.stop(run, "Its deployment failed or was cancelled.")
        elif run.state in runs.AGAIN and run.last_lines:
            log.say(deployment, f"Last lines of {run.workload.component.name}")
            log.write(deployment, "".join(f"       {str(line)[:400]}\n" for line in run.last_lines[-30:]))
