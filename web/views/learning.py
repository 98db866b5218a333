"""What the cell's components tried and no connection opens: what to declare, and what can't be."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_GET

from telemetry import learning
from telemetry.actions import KEPT_HOURS
from tenants.policy import Actor
from web.access import cell_place, signed_in

SPANS = (1, 24, KEPT_HOURS)


@require_GET
@signed_in
def page(request: HttpRequest, actor: Actor, tenant: str, project: str, environment: str) -> HttpResponse:
    """``?hours=``: how far back to look."""
    place = cell_place(actor, tenant, project, environment)
    asked = request.GET.get("hours", "")
    hours = int(asked) if asked in map(str, SPANS) else 24
    context = {
        "place": place,
        "tab": "learning",
        "crumb": "Learning",
        "lessons": learning.lessons(place.cell, hours),  # type: ignore[arg-type]
        "spans": SPANS,
    }
    return render(request, "web/learning.html", context)
