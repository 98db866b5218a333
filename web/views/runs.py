"""Runs of a cell and when its schedules come next; one that its component can do by itself can be begun here."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_GET, require_POST

from delivery import queries, run_actions
from delivery.models import Run
from tenants.policy import Actor
from web import queries_runs
from web.access import Place, cell_place, signed_in
from web.forms import perform
from web.paging import Listing


@require_GET
@signed_in
def listing(request: HttpRequest, actor: Actor, tenant: str, project: str, environment: str) -> HttpResponse:
    """Schedules, and runs of all kinds, newest first."""
    place = cell_place(actor, tenant, project, environment)
    assert place.cell is not None
    component = request.GET.get("component", "")
    state = request.GET.get("state", "")
    found = queries.runs(place.cell, component)
    if state in Run.State.values:
        found = found.filter(state=state)
    context = _context(place) | {
        "listing": Listing.of(request, found, 30),
        "component": component,
        "state": state,
        "states": Run.State.values,
        "schedules": queries.schedules(place.cell),
        "runnable": queries_runs.runnable(place.cell),
        "example": queries_runs.example(place.cell),
    }
    return render(request, "web/runs.html", context)


@require_GET
@signed_in
def page(
    request: HttpRequest, actor: Actor, tenant: str, project: str, environment: str, number: int
) -> HttpResponse:
    """One run: how it ended, and the last lines that it wrote."""
    place = cell_place(actor, tenant, project, environment)
    assert place.cell is not None
    run = queries.get_run(place.cell, number)
    context = _context(place) | {"run": run, "crumb": f"Run {run.pk}", "active": run.state in Run.ACTIVE}
    return render(request, "web/run.html", context)


def _context(place: Place) -> dict[str, Any]:
    return {"place": place, "tab": "runs", "crumb": "Runs", "kinds": queries_runs.KIND_WORDS}


@require_POST
@signed_in
def start(request: HttpRequest, actor: Actor, tenant: str, project: str, environment: str) -> HttpResponse:
    """Run what a component of kind cron or job does, now."""
    place = cell_place(actor, tenant, project, environment)
    component = request.POST.get("component", "")
    return perform(
        request,
        lambda: run_actions.start(acting_user=actor, cell=place.cell, component=component),  # type: ignore[arg-type]
        back=f"{place.url}/runs",
        then=lambda run: f"{place.url}/runs/{run.pk}",
    )


@require_POST
@signed_in
def cancel(
    request: HttpRequest, actor: Actor, tenant: str, project: str, environment: str, number: int
) -> HttpResponse:
    """End a run that goes on."""
    place = cell_place(actor, tenant, project, environment)
    assert place.cell is not None
    run = queries.get_run(place.cell, number)
    return perform(
        request,
        lambda: run_actions.cancel(acting_user=actor, cell=place.cell, run=run),  # type: ignore[arg-type]
        back=f"{place.url}/runs/{number}",
        done=f"Run {number} is cancelled.",
    )
