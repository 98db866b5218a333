"""Where people land: their tenants, a tenant's projects, the first run of a new project."""

from __future__ import annotations

from django.conf import settings
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.views.decorators.http import require_GET, require_http_methods

from controlplane.errors import CytoplaneError
from projects import actions
from tenants.policy import Actor, visible_tenants
from web import queries_home
from web.access import project_place, signed_in, tenant_place
from web.paging import Listing, page_number


@require_GET
@signed_in
def index(request: HttpRequest, actor: Actor) -> HttpResponse:
    """To the only tenant, or a choice of tenants."""
    tenants = list(visible_tenants(actor)[:200])
    mine = [tenant for tenant in tenants if actor.role(tenant.pk)]
    if len(mine) == 1:
        return HttpResponseRedirect(f"/{mine[0].slug}")
    if not mine and actor.is_platform_admin:
        return HttpResponseRedirect("/admin")
    rows = [(tenant, actor.role(tenant.pk)) for tenant in mine]
    return render(request, "web/tenants.html", {"rows": rows})


@require_GET
@signed_in
def tenant(request: HttpRequest, actor: Actor, tenant: str) -> HttpResponse:
    """A tenant's projects and what wants a look."""
    place = tenant_place(actor, tenant)
    search, page = request.GET.get("q", "")[:80].strip(), page_number(request)
    projects, total = queries_home.projects_page(place.tenant, search, page)
    context = {
        "place": place,
        "tab": "projects",
        "search": search,
        "cards": queries_home.cards(place.tenant, projects),
        "listing": Listing(projects, page, queries_home.PAGE, total),
        "attention": queries_home.attention(place.tenant),
    }
    return render(request, "web/tenant.html", context)


@require_http_methods(["GET", "POST"])
@signed_in
def new_project(request: HttpRequest, actor: Actor, tenant: str) -> HttpResponse:
    """The form of a new project; it leads to the commands that deploy into it."""
    place = tenant_place(actor, tenant)
    context = {"place": place, "tab": "projects", "crumb": "New project", "values": request.POST}
    if request.method == "POST":
        try:
            project = actions.create_project(
                acting_user=actor,
                tenant=place.tenant,
                slug=request.POST.get("slug", "").strip(),
                description=request.POST.get("description", "").strip(),
                strict=request.POST.get("strict") == "on",
            )
        except CytoplaneError as error:
            return render(request, "web/new_project.html", {**context, "error": error}, status=error.status)
        return HttpResponseRedirect(f"/{tenant}/{project.slug}")
    return render(request, "web/new_project.html", context)


@require_GET
@signed_in
def project(request: HttpRequest, actor: Actor, tenant: str, project: str) -> HttpResponse:
    """To the project's last stage."""
    place = project_place(actor, tenant, project)
    last = max(place.environments, key=lambda e: e.position)
    return HttpResponseRedirect(f"{place.url}/{last.name}")


def commands(place) -> list[tuple[str, str]]:  # type: ignore[no-untyped-def]
    """The four commands that lead from an empty project to a live application."""
    config = settings.CONFIG
    remote = f"{config.portal_url}/git/{place.tenant.slug}/{place.project.slug}.git"
    return [
        ("Sign in on your machine, once", f"cyto login --url {config.portal_url}"),
        ("Let git use that sign-in", f"cyto git setup --url {config.portal_url}"),
        ("In your repository, name the platform", f"git remote add cytoplane {remote}"),
        ("Push: it is built, started, checked and then served",
         f"git push cytoplane {place.environment.branch}"),
    ]  # fmt: skip
