"""A cell: its live picture, its edges, its components, its settings."""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_GET, require_POST

from controlplane.errors import CytoplaneError, not_found
from delivery import actions as delivery
from projects import actions, queries
from tenants.policy import Actor
from web import layout, network, queries_cell, queries_deployment, sse
from web.access import Place, actor_anew, cell_place, require_actor, signed_in
from web.forms import perform
from web.views.home import commands

#: Seconds between two looks at what changed.
INTERVAL = 1.5


def _context(place: Place) -> dict[str, Any]:
    assert place.cell is not None
    rows = queries_cell.component_rows(place)
    newest = place.cell.deployments.select_related("release").first()
    picture = queries_cell.picture(place, rows)
    return {
        "place": place,
        "tab": "cell",
        "rows": rows,
        "picture": picture,
        "drawings": [layout.wide(picture), layout.narrow(picture)] if rows else [],
        "newest": newest,
        "state": queries_cell.cell_state(rows, place.cell, newest),
        "is_strict": queries_cell.is_strict(place),
        "events": f"{place.url}/events",
    }


@require_GET
@signed_in
def page(request: HttpRequest, actor: Actor, tenant: str, project: str, environment: str) -> HttpResponse:
    """The project's page. ``?part=`` gives one part of it anew."""
    place = cell_place(actor, tenant, project, environment)
    context = _context(place)
    part = request.GET.get("part", "")
    if part in ("", "timeline"):
        context["timeline"] = queries_deployment.timeline(place.cell, place.url)  # type: ignore[arg-type]
    templates = {"picture": "picture_stage", "edges": "edges", "timeline": "timeline", "head": "cell_head"}
    if part in templates:
        return render(request, f"web/parts/{templates[part]}.html", context)
    if place.cell.serving_release_id is None and context["newest"] is None:  # type: ignore[union-attr]
        return render(request, "web/first_run.html", {**context, "commands": commands(place)})
    return render(request, "web/cell.html", context)


def _live(request: HttpRequest, names: tuple[str, str, str]) -> dict[str, Any]:
    """What the stream compares."""
    place = cell_place(require_actor(request), *names)
    context = _context(place)
    picture, drawings = context["picture"], context["drawings"]
    labels = {wire.edge.key: wire.text for drawing in drawings[:1] for wire in drawing.wires}
    edges = {
        edge.key: {
            "label": labels.get(edge.key, ""),
            "style": edge.style,
            "title": edge.title,
        }
        for edge in picture.edges
    }
    nodes = {n.end.key: {"tone": n.tone, "word": n.word, "note": n.note} for n in picture.nodes}
    newest = context["newest"]
    return {
        "picture": {"shape": picture.shape, "edges": edges, "nodes": nodes},
        "edges": [(e.key, e.packets) for e in picture.edges],
        "head": [context["state"], newest.pk if newest else 0, newest.state if newest else ""],
        "empty": place.cell.serving_release_id is None and newest is None,  # type: ignore[union-attr]
    }


async def events(request: HttpRequest, tenant: str, project: str, environment: str) -> HttpResponse:
    """The page's stream: the picture's figures, and which parts of the page changed."""
    names = (tenant, project, environment)
    first = await sse.read(_live, request, names)

    async def stream() -> AsyncIterator[bytes]:
        before, digest = first, ""
        async for due in sse.ticks(INTERVAL, lambda: cell_place(actor_anew(request), *names)):
            now = await sse.read(_live, request, names)
            if before["empty"] and not now["empty"]:
                yield sse.event("go")
                return
            fresh = hashlib.sha256(json.dumps(now["picture"], sort_keys=True).encode()).hexdigest()
            if fresh != digest:
                digest = fresh
                yield sse.event("picture", now["picture"])
            topics = [topic for topic in ("edges", "head") if now[topic] != before[topic]]
            if "head" in topics:
                topics.append("timeline")
            if topics:
                yield sse.event("changed", {"topics": topics})
            elif due:
                yield sse.event("ping")
            before = now

    return sse.response(stream())


@require_GET
@signed_in
def component(
    request: HttpRequest, actor: Actor, tenant: str, project: str, environment: str, component: str
) -> HttpResponse:
    """One component: replicas, endpoints, edges, configuration names, its logs a click away."""
    place = cell_place(actor, tenant, project, environment)
    rows = queries_cell.component_rows(place)
    row = next((row for row in rows if row.name == component), None)
    if row is None:
        raise not_found("component")
    picture = queries_cell.picture(place, rows)
    key = f"w{row.identity}"
    points, refused = queries_cell.component_traffic(place.cell, row.identity)  # type: ignore[arg-type]
    context = {
        "place": place,
        "tab": "cell",
        "crumb": component,
        "row": row,
        "points": points,
        "refused": refused,
        "edges_in": [e for e in picture.edges if e.destination.key == key],
        "edges_out": [e for e in picture.edges if e.source.key == key],
        "network": network.limits_of(place.cell, component),  # type: ignore[arg-type]
        "variables": queries.variables(place.cell).filter(component=None)  # type: ignore[arg-type]
        | queries.variables(place.cell).filter(component__name=component),  # type: ignore[arg-type]
        "events": f"{place.url}/events",
    }
    part = request.GET.get("part")
    return render(request, "web/parts/replicas.html" if part == "replicas" else "web/component.html", context)


@require_POST
@signed_in
def scale(
    request: HttpRequest, actor: Actor, tenant: str, project: str, environment: str, component: str
) -> HttpResponse:
    """Another number of replicas, as a deployment of the same release."""
    place = cell_place(actor, tenant, project, environment)
    text = request.POST.get("replicas", "")

    def act() -> Any:
        if not (text.isascii() and text.isdigit()):
            raise CytoplaneError(
                "invalid", field="replicas", message="The number of replicas is a whole number."
            )
        return delivery.scale(acting_user=actor, cell=place.cell, numbers={component: int(text)})  # type: ignore[arg-type]

    return perform(
        request, act, back=f"{place.url}/components/{component}",
        then=lambda deployment: f"{place.url}/deployments/{deployment.pk}",
    )  # fmt: skip


@require_GET
@signed_in
def settings_page(
    request: HttpRequest, actor: Actor, tenant: str, project: str, environment: str
) -> HttpResponse:
    """What is decided once: strictness, where it runs, the end of the project."""
    place = cell_place(actor, tenant, project, environment)
    return render(request, "web/settings.html", {"place": place, "tab": "settings", "crumb": "Settings"})


@require_POST
@signed_in
def strict(request: HttpRequest, actor: Actor, tenant: str, project: str, environment: str) -> HttpResponse:
    """Only declared connections pass within the project's cells, or all of its endpoints."""
    place = cell_place(actor, tenant, project, environment)
    wanted = request.POST.get("strict") == "on"
    return perform(
        request,
        lambda: actions.set_strict(acting_user=actor, project=place.project, strict=wanted),  # type: ignore[arg-type]
        back=f"{place.url}/settings",
        done="Only declared connections pass now."
        if wanted
        else "Endpoints of the cell are open within it now.",
    )


@require_POST
@signed_in
def audit(request: HttpRequest, actor: Actor, tenant: str, project: str, environment: str) -> HttpResponse:
    """What the project's declarations could open passes and is reported, or is denied."""
    place = cell_place(actor, tenant, project, environment)
    wanted = request.POST.get("audit") == "on"
    return perform(
        request,
        lambda: actions.set_audit(acting_user=actor, project=place.project, audited=wanted),  # type: ignore[arg-type]
        back=f"{place.url}/settings",
        done="What its declarations could open passes and is reported now."
        if wanted
        else "What isn't declared is denied now.",
    )


@require_POST
@signed_in
def destroy(request: HttpRequest, actor: Actor, tenant: str, project: str, environment: str) -> HttpResponse:
    """The end of a project, in all its environments."""
    place = cell_place(actor, tenant, project, environment)
    return perform(
        request,
        lambda: actions.destroy_project(
            acting_user=actor,
            project=place.project,
            confirm=request.POST.get("confirm", "").strip(),  # type: ignore[arg-type]
        ),
        back=f"{place.url}/settings",
        done=f"{project} is destroyed.",
        then=lambda _: f"/{tenant}",
    )
