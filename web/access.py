"""From a request to who acts and on what; every view begins here.

``Place`` is what the address names, looked up below what the actor may see: a foreign tenant, a
foreign project and one that doesn't exist give the same answer.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps

from django.contrib.auth import get_user
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.utils.http import urlencode

from controlplane.errors import CytoplaneError, not_found
from projects.models import Cell, Environment, Project
from tenants.models import Tenant, User
from tenants.policy import Actor, actor_for, authorise_platform, get_tenant, may


def actor_of(request: HttpRequest) -> Actor | None:
    """Who acts, by session; read once for each request. None: nobody is signed in."""
    if not hasattr(request, "_actor"):
        user = request.user
        signed_in = user.is_authenticated and user.is_active
        request._actor = (  # type: ignore[attr-defined]
            actor_for(user, request_id=getattr(request, "request_id", "")) if signed_in else None
        )
    return request._actor  # type: ignore[attr-defined]


def require_actor(request: HttpRequest) -> Actor:
    """Who acts, or `not-signed-in`."""
    actor = actor_of(request)
    if actor is None:
        raise CytoplaneError("not-signed-in")
    return actor


def actor_anew(request: HttpRequest) -> Actor:
    """Who acts by now: session, account and roles are read again. Raises `not-signed-in`."""
    user = get_user(request)
    key = request.session.session_key
    if not isinstance(user, User) or not key or not request.session.exists(key):
        raise CytoplaneError("not-signed-in")
    return actor_for(user, request_id=getattr(request, "request_id", ""))


def signed_in(view: Callable) -> Callable:
    """A view for people who are signed in; others are led to the door and back here afterwards."""

    @wraps(view)
    def inner(request: HttpRequest, *args, **kwargs) -> HttpResponse:
        actor = actor_of(request)
        if actor is None:
            if "text/html" not in request.headers.get("Accept", "text/html"):
                raise CytoplaneError("not-signed-in")
            target = f"/sign-in?{urlencode({'next': request.get_full_path()})}"
            if request.headers.get("HX-Request"):
                response = HttpResponse(status=204)
                response["HX-Redirect"] = "/sign-in"
                return response
            return HttpResponseRedirect(target)
        return view(request, actor, *args, **kwargs)

    return inner


def platform_admin(view: Callable) -> Callable:
    """A view of the admin console; for everybody else it doesn't exist."""

    @signed_in
    @wraps(view)
    def inner(request: HttpRequest, actor: Actor, *args, **kwargs) -> HttpResponse:
        authorise_platform(actor)
        return view(request, actor, *args, **kwargs)

    return inner


@dataclass
class Place:
    """Where a page is: a tenant, perhaps a project, perhaps a cell."""

    actor: Actor
    tenant: Tenant
    project: Project | None = None
    environment: Environment | None = None
    cell: Cell | None = None
    environments: tuple[Environment, ...] = ()

    def may(self, action: str) -> bool:
        """Whether to show what leads to ``action``."""
        return may(self.actor, action, self.tenant)

    @property
    def may_deploy(self) -> bool:
        return self.may("deploy")

    @property
    def may_configure(self) -> bool:
        return self.may("configure")

    @property
    def may_scale(self) -> bool:
        return self.may("scale")

    @property
    def may_manage_members(self) -> bool:
        return self.may("manage members")

    @property
    def may_manage_planes(self) -> bool:
        return self.actor.is_platform_admin or self.may("manage planes")

    @property
    def may_manage_environments(self) -> bool:
        return self.may("manage environments")

    @property
    def may_read_audit(self) -> bool:
        return self.may("read audit")

    @property
    def may_create_project(self) -> bool:
        return self.may("create project")

    @property
    def may_destroy_project(self) -> bool:
        return self.may("destroy project")

    @property
    def role(self) -> str:
        return self.actor.role(self.tenant.pk) or "platform admin"

    @property
    def url(self) -> str:
        """The address of this place."""
        parts = [self.tenant.slug]
        if self.project:
            parts.append(self.project.slug)
        if self.environment:
            parts.append(self.environment.name)
        return "/" + "/".join(parts)

    @property
    def tenant_url(self) -> str:
        return f"/{self.tenant.slug}"


def tenant_place(actor: Actor, tenant: str) -> Place:
    """The tenant by name, if the actor may read it."""
    return Place(actor=actor, tenant=get_tenant(actor, tenant))


def project_place(actor: Actor, tenant: str, project: str) -> Place:
    """The project by names."""
    place = tenant_place(actor, tenant)
    place.project = Project.objects.filter(tenant=place.tenant, slug=project).first()
    if place.project is None:
        raise not_found("project")
    place.project.tenant = place.tenant
    place.environments = tuple(Environment.objects.filter(tenant=place.tenant).select_related("plane"))
    return place


def cell_place(actor: Actor, tenant: str, project: str, environment: str) -> Place:
    """The cell where project and environment meet."""
    place = project_place(actor, tenant, project)
    place.environment = next((e for e in place.environments if e.name == environment), None)
    if place.environment is None or place.project is None:
        raise not_found("environment")
    place.cell = (
        Cell.objects.select_related("serving_release")
        .filter(project=place.project, environment=place.environment)
        .first()
    )
    if place.cell is None:
        raise not_found("cell")
    place.cell.project = place.project
    place.cell.environment = place.environment
    return place
