"""Why a call is allowed or denied: two ends, a sentence, the declaration that would change it."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_GET

from controlplane.errors import CytoplaneError
from projects.models import Cell, Workload
from telemetry import queries
from tenants.policy import Actor
from web.access import signed_in, tenant_place


@require_GET
@signed_in
def why(request: HttpRequest, actor: Actor, tenant: str) -> HttpResponse:
    """``?cell=project/environment&source=&destination=&port=&protocol=``."""
    place = tenant_place(actor, tenant)
    cells = list(
        Cell.objects.filter(project__tenant=place.tenant)
        .select_related("project__tenant", "environment__plane")
        .order_by("project__slug", "-environment__position")
    )
    chosen = request.GET.get("cell", "")
    cell = next((c for c in cells if f"{c.project.slug}/{c.environment.name}" == chosen), None)
    if cell is None and cells:
        cell = cells[0]
    values = {
        key: request.GET.get(key, "").strip()[:200] for key in ("source", "destination", "port", "protocol")
    }
    context: dict[str, Any] = {
        "place": place,
        "tab": "why",
        "crumb": "Why",
        "cells": [
            (f"{c.project.slug}/{c.environment.name}", f"{c.project.slug} · {c.environment.name}")
            for c in cells
        ],
        "chosen": f"{cell.project.slug}/{cell.environment.name}" if cell else "",
        "components": list(
            Workload.objects.filter(cell=cell)
            .values_list("component__name", flat=True)
            .order_by("component__name")
        ),
        "values": values,
    }
    if cell and values["source"] and values["destination"]:
        try:
            port = int(values["port"] or 0)
            if not 0 <= port <= 65535:
                raise ValueError
        except ValueError:
            context["error"] = CytoplaneError(
                "invalid", field="port", message="The port is a number up to 65535."
            )
        else:
            try:
                start, target, answers = queries.why(
                    cell, values["source"], values["destination"], port, values["protocol"]
                )
                context |= {"start": start, "target": target, "answers": answers, "answer": answers[0]}
            except CytoplaneError as error:
                context["error"] = error
    template = "web/parts/answer.html" if request.GET.get("part") == "answer" else "web/why.html"
    return render(request, template, context)
