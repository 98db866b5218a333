"""Who belongs to a tenant, what it uses, and what was done in it."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from tenants import actions, queries
from tenants.models import Role
from tenants.policy import Actor, authorise
from web import queries_home
from web.access import signed_in, tenant_place
from web.forms import perform
from web.paging import Listing
from web.states import ROLE_WORDS


@require_http_methods(["GET", "POST"])
@signed_in
def members(request: HttpRequest, actor: Actor, tenant: str) -> HttpResponse:
    """Members with their roles; a POST adds one or changes a role."""
    place = tenant_place(actor, tenant)
    if request.method == "POST":
        email, role = request.POST.get("email", "").strip(), request.POST.get("role", "")
        return perform(
            request,
            lambda: actions.set_member(acting_user=actor, tenant=place.tenant, email=email, role=role),
            back=f"/{tenant}/-/members",
            done=f"{email} is {role} now.",
        )
    context = {
        "place": place, "tab": "members", "crumb": "Members", "members": queries.members(place.tenant),
        "roles": [(role, ROLE_WORDS[role]) for role in Role.values],
    }  # fmt: skip
    return render(request, "web/members.html", context)


@require_POST
@signed_in
def remove(request: HttpRequest, actor: Actor, tenant: str) -> HttpResponse:
    """End a membership."""
    place = tenant_place(actor, tenant)
    email = request.POST.get("email", "").strip()
    return perform(
        request,
        lambda: actions.remove_member(acting_user=actor, tenant=place.tenant, email=email),
        back=f"/{tenant}/-/members",
        done=f"{email} isn't a member any more.",
    )


@require_GET
@signed_in
def usage(request: HttpRequest, actor: Actor, tenant: str) -> HttpResponse:
    """What is used of the plan."""
    place = tenant_place(actor, tenant)
    context = {"place": place, "tab": "usage", "crumb": "Usage", "usage": queries_home.usage(place.tenant)}
    return render(request, "web/usage.html", context)


@require_GET
@signed_in
def audit(request: HttpRequest, actor: Actor, tenant: str) -> HttpResponse:
    """What was done in the tenant, by whom."""
    place = tenant_place(actor, tenant)
    authorise(actor, "read audit", place.tenant)
    search = request.GET.get("q", "")[:80].strip()
    events = queries.audit_events(place.tenant)
    if search:
        events = (
            events.filter(actor__icontains=search)
            | events.filter(verb__icontains=search)
            | events.filter(object_name__icontains=search)
        )
    context = {
        "place": place, "tab": "audit", "crumb": "Audit", "search": search, "listing": Listing.of(request, events),
    }  # fmt: skip
    return render(request, "web/audit.html", context)
