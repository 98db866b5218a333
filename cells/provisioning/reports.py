"""Places on planes that dial in: what their controller is told, and what it says about them.

It is the only one who changes them there, so there is no lease; what it says is untrusted and concerns
places of its own plane only.
"""

from __future__ import annotations

import re
from typing import Any

from django.utils import timezone

from cells.provisioning.models import Place
from cells.provisioning.work import REST, quota
from dataplane.planes import pods
from dataplane.planes.models import Plane

#: Reported at once.
MOST = 5000
_STATES = {Place.State.READY, Place.State.DRIFTED, Place.State.FAILED, Place.State.REMOVING}
_CODE = re.compile(r"[a-z-]{0,40}")


def wanted(plane: Plane) -> list[dict[str, Any]]:
    """Places as the controller makes them, all of them: what it isn't told of it leaves alone, for ever.

    For its eyes alone: what images are pulled with is in it.
    """
    rows = Place.objects.filter(plane=plane).select_related("cell__project__tenant__plan").order_by("pk")
    found = []
    for place in rows:
        allowed = quota(place.cell.project.tenant.plan) if place.cell else None
        there = place.wanted and allowed is not None
        found.append(
            {
                "location": place.location,
                "number": place.number,
                "tenant": place.tenant,
                "project": place.project,
                "environment": place.environment,
                "wanted": there,
                "asked": place.asked,
                "quota": [allowed.replicas, allowed.cpu, allowed.memory] if allowed else [1, 1, 1],
                "pull": pods.token(place.location) if there else "",
            }
        )
    return found


def record(plane: Plane, reports: list[dict[str, Any]]) -> None:
    """Take what a controller says of its places; others are ignored. What is gone and not wanted is forgotten."""
    by_location = {
        report["location"]: report for report in reports[:MOST] if isinstance(report.get("location"), str)
    }
    for place in Place.objects.filter(plane=plane, location__in=by_location):
        report = by_location[place.location]
        state = report.get("state")
        if state == "absent":
            Place.objects.filter(pk=place.pk, wanted=False).delete()
        elif isinstance(state, str) and state in _STATES:
            _take(place, report)


def _take(place: Place, report: dict[str, Any]) -> None:
    problems, code, revision = report.get("problems"), report.get("error"), report.get("revision")
    now = timezone.now()
    fields: dict[str, Any] = {
        "state": report["state"] if place.wanted else Place.State.REMOVING,
        "problems": [str(item)[:500] for item in problems[:20]] if isinstance(problems, list) else [],
        "error_code": code if isinstance(code, str) and _CODE.fullmatch(code) else "",
        "revision": revision if type(revision) is int and 0 <= revision < 2**31 else place.revision,
        "checked_at": now,
        "next_at": now + REST,
    }
    if fields["state"] != place.state:
        fields["state_since"] = now
    Place.objects.filter(pk=place.pk, wanted=place.wanted).update(**fields)
