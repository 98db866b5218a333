"""A tenant's data planes: where its environments are, its own planes, and the commands that join them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_http_methods, require_POST

from cells.provisioning import actions as provisioning
from controlplane.errors import CytoplaneError, not_found
from dataplane.planes import private
from dataplane.planes.models import Plane
from projects import actions as projects
from tenants.policy import Actor
from web import queries_admin
from web.access import Place, signed_in, tenant_place
from web.forms import perform


def _page(request: HttpRequest, place: Place, status: int = 200, **more: Any) -> HttpResponse:
    context = {
        "place": place, "tab": "planes", "crumb": "Planes",
        "planes": queries_admin.planes(place.tenant),
        "environments": place.tenant.environments.select_related("plane"),
        "bindable": private.bindable(place.actor, place.tenant),
        "engines": Plane.Engine.values, **more,
    }  # fmt: skip
    return render(request, "web/planes.html", context, status=status)


@require_http_methods(["GET", "POST"])
@signed_in
def planes(request: HttpRequest, actor: Actor, tenant: str) -> HttpResponse:
    """Planes and environments; a POST makes a plane and shows, once, the command that joins it."""
    place = tenant_place(actor, tenant)
    if request.method != "POST":
        return _page(request, place)
    form = request.POST
    number = form.get("net", "").strip()
    return _invited(
        request,
        place,
        lambda: private.create(
            acting_user=actor,
            name=form.get("name", "").strip(),
            engine=form.get("engine", ""),
            owner=place.tenant.slug,
            net=int(number) if number.isdigit() and len(number) < 4 else None,
        ),
    )


@require_POST
@signed_in
def token(request: HttpRequest, actor: Actor, tenant: str) -> HttpResponse:
    """Another command for a plane, shown once."""
    place = tenant_place(actor, tenant)
    name = _own(place, request).name
    return _invited(request, place, lambda: private.invite(acting_user=actor, name=name))


def _invited(request: HttpRequest, place: Place, action: Callable[[], private.Invitation]) -> HttpResponse:
    """The page with the invitation in it: it is in no address, no message and no session."""
    try:
        return _page(request, place, invitation=action())
    except CytoplaneError as error:
        if error.status in (401, 404):
            raise
        return _page(request, place, error.status, error=error)


@require_POST
@signed_in
def revoke(request: HttpRequest, actor: Actor, tenant: str) -> HttpResponse:
    """Close a plane's certificates."""
    place = tenant_place(actor, tenant)
    name = _own(place, request).name

    def act() -> Plane:
        if request.POST.get("confirm", "").strip() != name:
            raise CytoplaneError("invalid", field="confirm", message=f"Type {name} to confirm.")
        return private.revoke(acting_user=actor, name=name)

    return perform(
        request, act, back=f"/{tenant}/-/planes", done=f"{name} is revoked: it opens nothing any more."
    )


@require_POST
@signed_in
def environment(request: HttpRequest, actor: Actor, tenant: str) -> HttpResponse:
    """Where an environment is, or what its deployments do while its plane is offline."""
    place = tenant_place(actor, tenant)
    name, back = request.POST.get("environment", "")[:40], f"/{tenant}/-/planes"
    if "offline" in request.POST:
        waits = request.POST["offline"] == "wait"
        return perform(
            request,
            lambda: projects.set_waits(acting_user=actor, tenant=place.tenant, name=name, waits=waits),
            back=back,
            done=f"Deployments to {name} {'wait' if waits else 'fail'} while its plane is offline.",
        )
    plane = request.POST.get("plane", "")[:40]
    return perform(
        request,
        lambda: provisioning.bind_environment(
            acting_user=actor, tenant=tenant, environment=name, plane=plane
        ),
        back=back,
        done=f"{name} is on {plane} now.",
    )


def _own(place: Place, request: HttpRequest) -> Plane:
    """A plane of this tenant, by the form."""
    found = Plane.objects.filter(owner=place.tenant, name=request.POST.get("plane", "")[:40]).first()
    if found is None:
        raise not_found("plane")
    return found
