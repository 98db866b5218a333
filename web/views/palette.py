"""What the command palette finds: places and actions by name, below what the actor may see."""

from __future__ import annotations

from dataclasses import dataclass

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_GET

from delivery.models import Deployment
from projects.models import Project, Workload
from tenants.policy import Actor, visible_tenants
from web.access import signed_in

MOST = 8


@dataclass
class Found:
    icon: str
    text: str
    where: str
    url: str


@require_GET
@signed_in
def find(request: HttpRequest, actor: Actor) -> HttpResponse:
    """Options that contain every word of ``q``."""
    words = request.GET.get("q", "").lower().split()[:6]
    tenants = list(visible_tenants(actor)[:100])
    ids = [tenant.pk for tenant in tenants]
    groups = [
        ("Actions", _matching(_actions(actor, tenants, request.GET.get("at", "")), words)),
        ("Projects", _projects(ids, words)),
        ("Components", _components(ids, words) if words else []),
        ("Deployments", _deployments(ids, words)),
    ]
    return render(request, "web/parts/palette.html", {"groups": [group for group in groups if group[1]]})


def _matching(found: list[Found], words: list[str]) -> list[Found]:
    return [f for f in found if all(word in f"{f.text} {f.where}".lower() for word in words)][:MOST]


def _actions(actor: Actor, tenants: list, at: str) -> list[Found]:
    here = at.strip("/").split("/")[0]
    found = []
    for tenant in sorted(tenants, key=lambda t: t.slug != here)[:10]:
        base = f"/{tenant.slug}"
        found += [
            Found("layers", "Projects", tenant.slug, base),
            Found("plus", "New project", tenant.slug, f"{base}/-/new"),
            Found("circle-help", "Why is a call allowed or denied", tenant.slug, f"{base}/-/why"),
            Found("users", "Members", tenant.slug, f"{base}/-/members"),
            Found("gauge", "Usage", tenant.slug, f"{base}/-/usage"),
        ]
    found.append(Found("key-round", "Your tokens", "account", "/-/tokens"))
    if actor.is_platform_admin:
        found += [
            Found("shield", "Tenants", "administration", "/admin"),
            Found("server", "Planes and nodes", "administration", "/admin/planes"),
        ]
    return found


def _projects(ids: list[int], words: list[str]) -> list[Found]:
    rows = Project.objects.filter(tenant__in=ids).select_related("tenant").order_by("slug")
    for word in words:
        rows = rows.filter(slug__icontains=word)
    return [Found("box", p.slug, p.tenant.slug, f"/{p.tenant.slug}/{p.slug}") for p in rows[:MOST]]


def _components(ids: list[int], words: list[str]) -> list[Found]:
    rows = Workload.objects.filter(cell__project__tenant__in=ids).select_related(
        "component", "cell__project__tenant", "cell__environment"
    )
    for word in words:
        rows = rows.filter(component__name__icontains=word) | rows.filter(cell__project__slug__icontains=word)
    return [
        Found(
            "cpu", w.component.name, f"{w.cell.project.slug} · {w.cell.environment.name}",
            f"/{w.cell.project.tenant.slug}/{w.cell.project.slug}/{w.cell.environment.name}/components/{w.component.name}",
        )
        for w in rows.order_by("component__name")[:MOST]
    ]  # fmt: skip


def _deployments(ids: list[int], words: list[str]) -> list[Found]:
    rows = (
        Deployment.objects.filter(cell__project__tenant__in=ids)
        .select_related("cell__project__tenant", "cell__environment")
        .order_by("-pk")
    )
    for word in words:
        rows = rows.filter(summary__icontains=word) | rows.filter(cell__project__slug__icontains=word)
    return [
        Found(
            "rocket", f"{d.pk} {d.summary or d.kind}", f"{d.cell.project.slug} · {d.cell.environment.name}",
            f"/{d.cell.project.tenant.slug}/{d.cell.project.slug}/{d.cell.environment.name}/deployments/{d.pk}",
        )
        for d in rows[:MOST]
    ]  # fmt: skip
