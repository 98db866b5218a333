"""Deployments with their log while it is written, releases, and the way back."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_GET, require_POST

from controlplane.errors import not_found
from delivery import actions
from delivery.models import Deployment, Release
from tenants.policy import Actor
from web import queries_deployment, queries_logs, sse
from web.access import Place, actor_anew, cell_place, signed_in
from web.forms import perform
from web.paging import Listing

INTERVAL = 0.4


def _deployment(place: Place, number: int) -> Deployment:
    """A deployment of this cell; one of another cell is as good as none."""
    assert place.cell is not None
    found = place.cell.deployments.select_related("release", "cell").filter(pk=number).first()
    if found is None:
        raise not_found("deployment")
    found.cell = place.cell
    return found


def _summary(place: Place, deployment: Deployment) -> dict[str, Any]:
    release = deployment.release
    before = queries_deployment.previous_release(release) if release else None
    return {
        "place": place,
        "tab": "deployments",
        "crumb": f"Deployment {deployment.pk}",
        "deployment": deployment,
        "kind": queries_deployment.KIND_WORDS.get(deployment.kind, deployment.kind),
        "ended": deployment.state in Deployment.ENDED,
        "steps": queries_deployment.step_rows(deployment),
        "took": queries_deployment.took(deployment),
        "changes": queries_deployment.changes(release, before),
        "is_serving": release is not None and place.cell.serving_release_id == release.pk,  # type: ignore[union-attr]
    }


@require_GET
@signed_in
def listing(request: HttpRequest, actor: Actor, tenant: str, project: str, environment: str) -> HttpResponse:
    """Deployments of the cell, newest first."""
    place = cell_place(actor, tenant, project, environment)
    state = request.GET.get("state", "")
    found = place.cell.deployments.select_related("release")  # type: ignore[union-attr]
    if state in Deployment.State.values:
        found = found.filter(state=state)
    rows = Listing.of(request, found.order_by("-pk"), 30)
    context = {
        "place": place, "tab": "deployments", "crumb": "Deployments", "listing": rows, "state": state,
        "states": Deployment.State.values, "kinds": queries_deployment.KIND_WORDS,
    }  # fmt: skip
    return render(request, "web/deployments.html", context)


@require_GET
@signed_in
def page(
    request: HttpRequest, actor: Actor, tenant: str, project: str, environment: str, number: int
) -> HttpResponse:
    """One deployment: steps, verdict, what changed, the log."""
    place = cell_place(actor, tenant, project, environment)
    deployment = _deployment(place, number)
    context = _summary(place, deployment)
    if request.GET.get("part") == "summary":
        context["as_part"] = True
        return render(request, "web/parts/deployment_summary.html", context)
    context["lines"] = queries_logs.deployment_lines(deployment)
    if not context["ended"]:
        context["events"] = f"{place.url}/deployments/{number}/events"
    return render(request, "web/deployment.html", context)


async def events(
    request: HttpRequest, tenant: str, project: str, environment: str, number: int
) -> HttpResponse:
    """The log's lines as they are written, and when the rest of the page changed."""

    def check() -> None:
        _deployment(cell_place(actor_anew(request), tenant, project, environment), number)

    await sse.read(check)
    assembler = queries_logs.Assembler()

    def look() -> tuple[str, int, list[dict]]:
        state = Deployment.objects.values_list("state", flat=True).get(pk=number)
        lines = queries_logs.read_chunks(number, assembler)
        if state in Deployment.ENDED:
            lines += assembler.finish()
        steps = Deployment.objects.get(pk=number).steps.count()
        return state, steps, [line.as_dict() for line in lines]

    async def stream() -> AsyncIterator[bytes]:
        before: tuple[str, int] | None = None
        async for due in sse.ticks(INTERVAL, check):
            state, steps, lines = await sse.read(look)
            if lines:
                yield sse.event("lines", lines)
            elif due:
                yield sse.event("ping")
            if before is not None and before != (state, steps):
                yield sse.event("changed", {"topics": ["summary"]})
            before = (state, steps)
            if state in Deployment.ENDED:
                yield sse.event("changed", {"topics": ["summary"]})
                yield sse.event("end")
                return

    return sse.response(stream())


@require_GET
@signed_in
def text(
    request: HttpRequest, actor: Actor, tenant: str, project: str, environment: str, number: int
) -> HttpResponse:
    """The whole log as a file."""
    deployment = _deployment(cell_place(actor, tenant, project, environment), number)
    answer = HttpResponse(queries_logs.deployment_text(deployment), content_type="text/plain; charset=utf-8")
    answer["Content-Disposition"] = f'attachment; filename="{project}-{environment}-{number}.log"'
    return answer


@require_POST
@signed_in
def cancel(
    request: HttpRequest, actor: Actor, tenant: str, project: str, environment: str, number: int
) -> HttpResponse:
    place = cell_place(actor, tenant, project, environment)
    deployment = _deployment(place, number)
    return perform(
        request,
        lambda: actions.cancel(acting_user=actor, deployment=deployment),
        back=f"{place.url}/deployments/{number}",
        done="It is being cancelled; what serves now goes on serving.",
    )


@require_POST
@signed_in
def retry(
    request: HttpRequest, actor: Actor, tenant: str, project: str, environment: str, number: int
) -> HttpResponse:
    place = cell_place(actor, tenant, project, environment)
    deployment = _deployment(place, number)
    return perform(
        request,
        lambda: actions.retry(acting_user=actor, deployment=deployment),
        back=f"{place.url}/deployments/{number}",
        then=lambda again: f"{place.url}/deployments/{again.pk}",
    )


@require_GET
@signed_in
def releases(request: HttpRequest, actor: Actor, tenant: str, project: str, environment: str) -> HttpResponse:
    """Releases of the cell; each but the one that serves can be gone back to."""
    place = cell_place(actor, tenant, project, environment)
    found = (
        Release.objects.filter(cell=place.cell)
        .select_related("rolled_back_from", "promoted_from__cell__environment")
        .order_by("-number")
    )
    rows = Listing.of(request, found, 20)
    serving = place.cell.serving_release  # type: ignore[union-attr]
    served = set(
        Deployment.objects.filter(release__in=rows.items, state=Deployment.State.LIVE).values_list(
            "release", flat=True
        )
    )
    entries = [
        {
            "release": release,
            "served": release.pk in served,
            "changes": queries_deployment.changes(release, serving) if serving else [],
        }
        for release in rows.items
    ]
    context = {
        "place": place, "tab": "releases", "crumb": "Releases", "listing": rows, "entries": entries,
        "serving": serving,
    }  # fmt: skip
    return render(request, "web/releases.html", context)


@require_POST
@signed_in
def promote(
    request: HttpRequest, actor: Actor, tenant: str, project: str, environment: str, number: int
) -> HttpResponse:
    """A release's code into another environment, whose deployment is shown next."""
    place = cell_place(actor, tenant, project, environment)
    to = request.POST.get("to", "")
    return perform(
        request,
        lambda: actions.promote(acting_user=actor, cell=place.cell, number=number, to=to),  # type: ignore[arg-type]
        back=f"{place.url}/releases",
        then=lambda deployment: f"{place.tenant_url}/{project}/{to}/deployments/{deployment.pk}",
    )


@require_POST
@signed_in
def rollback(
    request: HttpRequest, actor: Actor, tenant: str, project: str, environment: str, number: int
) -> HttpResponse:
    """Back to a release: code and configuration together, as a new release."""
    place = cell_place(actor, tenant, project, environment)
    return perform(
        request,
        lambda: actions.rollback(acting_user=actor, cell=place.cell, number=number),  # type: ignore[arg-type]
        back=f"{place.url}/releases",
        then=lambda deployment: f"{place.url}/deployments/{deployment.pk}",
    )
