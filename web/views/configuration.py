"""Configuration and secrets: changes are staged in the browser and applied together as one release."""

from __future__ import annotations

import json
from typing import Any

from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_http_methods

from controlplane.errors import CytoplaneError
from projects import actions, queries
from tenants.policy import Actor
from web import queries_cell
from web.access import Place, cell_place, signed_in
from web.forms import perform


def _changes(text: str) -> dict[str, dict[str, Any]]:
    """Component → what to set, to keep as secrets and to unset. Raises `invalid` for anything else."""
    found: dict[str, dict[str, Any]] = {}
    try:
        for change in json.loads(text):
            part = found.setdefault(str(change["component"]), {"set": {}, "secrets": {}, "unset": []})
            name = str(change["name"])
            if change["kind"] == "unset":
                part["unset"].append(name)
            else:
                part["secrets" if change["secret"] else "set"][name] = str(change["value"])
    except (ValueError, TypeError, KeyError):
        raise CytoplaneError("invalid", field="changes", message="The changes can't be read.") from None
    if not found:
        raise CytoplaneError("invalid", field="changes", message="There is nothing to apply.")
    return found


def _apply(actor: Actor, place: Place, text: str) -> Any:
    """All changes together; the deployment that brings them, if something serves already."""
    assert place.cell is not None
    with transaction.atomic():
        changed = [
            actions.set_variables(acting_user=actor, cell=place.cell, component=component, **part)
            for component, part in _changes(text).items()
        ]
    if any(changed) and place.cell.serving_release_id:
        return place.cell.deployments.order_by("-pk").first()
    return None


@require_http_methods(["GET", "POST"])
@signed_in
def page(request: HttpRequest, actor: Actor, tenant: str, project: str, environment: str) -> HttpResponse:
    """The variables of the cell; a POST applies staged changes."""
    place = cell_place(actor, tenant, project, environment)
    back = f"{place.url}/configuration"
    if request.method == "POST":
        return perform(
            request,
            lambda: _apply(actor, place, request.POST.get("changes", "")),
            back=back,
            done="Applied.",
            then=lambda d: f"{place.url}/deployments/{d.pk}" if d else back,
        )
    cell = place.cell
    assert cell is not None
    rows = [
        {
            "variable": variable,
            "component": variable.component.name if variable.component else "",
            "value": "" if variable.is_secret else actions.variable_value(cell, variable),
        }
        for variable in queries.variables(cell)
    ]
    context = {
        "place": place,
        "tab": "configuration",
        "crumb": "Configuration",
        "rows": rows,
        "components": [row.name for row in queries_cell.component_rows(place)],
    }
    return render(request, "web/configuration.html", context)
