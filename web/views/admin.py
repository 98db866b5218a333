"""The admin console: tenants, planes and nodes, the audit of everything."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from controlplane.errors import CytoplaneError, not_found
from projects.models import Project
from tenants import actions, queries
from tenants.models import Tenant, User
from tenants.policy import Actor
from web import queries_admin, queries_home
from web.access import platform_admin
from web.forms import perform
from web.paging import Listing


@require_http_methods(["GET", "POST"])
@platform_admin
def tenants(request: HttpRequest, actor: Actor) -> HttpResponse:
    """All tenants; a POST creates one."""
    if request.method == "POST":
        slug, email = request.POST.get("slug", "").strip(), request.POST.get("owner", "").strip()

        def create() -> Tenant:
            owner = User.objects.filter(email=email).first() if email else None
            if email and owner is None:
                raise CytoplaneError("invalid", field="owner", message=f"Nobody has the address {email}.")
            name = request.POST.get("name", "").strip()
            return actions.create_tenant(acting_user=actor, slug=slug, name=name, owner=owner)

        return perform(
            request,
            create,
            back="/admin",
            done=f"{slug} is there.",
            then=lambda t: f"/admin/tenants/{t.slug}",
        )
    search, state = request.GET.get("q", "")[:80].strip(), request.GET.get("state", "")
    context = {
        "console": True, "tab": "tenants", "search": search, "state": state,
        "listing": Listing.of(request, queries_admin.tenants(search, state), 50),
    }  # fmt: skip
    return render(request, "web/admin/tenants.html", context)


def _tenant(name: str) -> Tenant:
    found = Tenant.objects.select_related("plan").filter(slug=name).first()
    if found is None:
        raise not_found("tenant")
    return found


@require_GET
@platform_admin
def tenant(request: HttpRequest, actor: Actor, tenant: str) -> HttpResponse:
    """One tenant: state, usage, members, projects."""
    found = _tenant(tenant)
    context = {
        "console": True, "tab": "tenants", "crumb": found.slug, "tenant": found,
        "usage": queries_home.usage(found), "members": queries.members(found),
        "projects": Project.objects.filter(tenant=found).order_by("slug")[:100],
        "events": None, "audit": queries.audit_events(found)[:12],
    }  # fmt: skip
    return render(request, "web/admin/tenant.html", context)


@require_POST
@platform_admin
def set_state(request: HttpRequest, actor: Actor, tenant: str) -> HttpResponse:
    """Suspend or resume; the name is asked for, since pushes stop at once."""
    found, state = _tenant(tenant), request.POST.get("state", "")
    back = f"/admin/tenants/{tenant}"

    def act() -> Tenant:
        if request.POST.get("confirm", "").strip() != found.slug:
            raise CytoplaneError("invalid", field="confirm", message=f"Type {found.slug} to confirm.")
        return actions.set_tenant_state(acting_user=actor, tenant=found, state=state)

    return perform(request, act, back=back, done=f"{found.slug} is {state} now.")


@require_POST
@platform_admin
def create_user(request: HttpRequest, actor: Actor) -> HttpResponse:
    """An account; whoever gets it changes the password."""
    email = request.POST.get("email", "").strip()
    return perform(
        request,
        lambda: actions.create_user(
            acting_user=actor, email=email, password=request.POST.get("password", "")
        ),
        back="/admin",
        done=f"{email} can sign in now.",
    )


@require_GET
@platform_admin
def planes(request: HttpRequest, actor: Actor) -> HttpResponse:
    """Planes and nodes: health, versions, what fails in the kernel, why one isn't healthy."""
    context = {
        "console": True, "tab": "planes", "crumb": "Planes",
        "planes": queries_admin.planes(), "builders": queries_admin.builders(),
    }  # fmt: skip
    return render(request, "web/admin/planes.html", context)


@require_GET
@platform_admin
def audit(request: HttpRequest, actor: Actor) -> HttpResponse:
    """What was done anywhere."""
    search = request.GET.get("q", "")[:80].strip()
    events = queries.audit_events().select_related("tenant")
    if search:
        events = (
            events.filter(actor__icontains=search)
            | events.filter(verb__icontains=search)
            | events.filter(object_name__icontains=search)
            | events.filter(tenant__slug__icontains=search)
        )
    context = {
        "console": True, "tab": "audit", "crumb": "Audit", "search": search, "listing": Listing.of(request, events),
    }  # fmt: skip
    return render(request, "web/admin/audit.html", context)
