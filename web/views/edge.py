"""The admin console's page of the edge: the deny list, and what each node refused by it."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_http_methods, require_POST

from dataplane.planes import edge
from dataplane.planes.models import DeniedNetwork
from tenants import signin
from tenants.policy import Actor
from web import queries_edge
from web.access import platform_admin
from web.forms import perform
from web.paging import Listing

#: What the form offers, in seconds; "" is until somebody takes it back.
TIMES = (("", "until it is removed"), ("3600", "an hour"), ("86400", "a day"), ("604800", "a week"))


@require_http_methods(["GET", "POST"])
@platform_admin
def denied(request: HttpRequest, actor: Actor) -> HttpResponse:
    """The list; a POST adds to it."""
    if request.method == "POST":
        network, seconds = request.POST.get("network", "").strip(), request.POST.get("seconds", "")

        def add() -> DeniedNetwork:
            return edge.add(
                acting_user=actor,
                network=network,
                reason=request.POST.get("reason", ""),
                seconds=int(seconds) if seconds in dict(TIMES) and seconds else None,
                force=request.POST.get("force") == "yes",
                client=signin.address_of(request),
            )

        return perform(request, add, back="/admin/edge", done=f"{network} is denied.")
    context = {
        "console": True, "tab": "edge", "crumb": "Edge", "edges": queries_edge.edges(), "times": TIMES,
        "listing": Listing.of(request, edge.networks(), 50),
    }  # fmt: skip
    return render(request, "web/admin/edge.html", context)


@require_POST
@platform_admin
def allow(request: HttpRequest, actor: Actor) -> HttpResponse:
    """Take a network off the list."""
    network = request.POST.get("network", "")
    return perform(
        request,
        lambda: edge.remove(acting_user=actor, network=network),
        back="/admin/edge",
        done=f"{network} may come again.",
    )
