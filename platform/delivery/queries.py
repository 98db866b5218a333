"""Reads of deployments for API, planes and git."""

from __future__ import annotations

import re
from typing import Any

from django.db.models import Q, QuerySet

from cells.specification import Specification
from controlplane.errors import not_found
from dataplane.planes.models import Node
from delivery.models import Build, Deployment, Release, Replica, Run, Schedule
from projects.models import Cell

_REPLICA = re.compile(r"r([1-9][0-9]{0,17})")


def replica_number(name: Any) -> int | None:
    """The number of a replica by the name that nodes know it by; None for what isn't one."""
    match = _REPLICA.fullmatch(name) if isinstance(name, str) else None
    return int(match.group(1)) if match else None


def builder_holds(node: Node, tenant: int, project: int) -> bool:
    """Whether the builder has a claimed build of the project."""
    return Build.objects.filter(
        node=node,
        state=Build.State.CLAIMED,
        deployment__cell__project=project,
        deployment__cell__project__tenant=tenant,
    ).exists()


def plane_runs(plane_id: int | None, tenant: int, project: int) -> bool:
    """Whether the project has a cell on the plane."""
    return Cell.objects.filter(environment__plane=plane_id, project=project, project__tenant=tenant).exists()


def plane_needs(plane_id: int | None, tenant: int, project: int, digest: str) -> bool:
    """Whether an image is one that the plane runs, or that a release which serves or comes there names.

    The project's other environments may be elsewhere: what only they run is none of this plane's.
    """
    on_plane = Q(cell__environment__plane=plane_id)
    comes = Deployment.objects.exclude(state__in=Deployment.ENDED).exclude(release=None).values("release")
    serves = Cell.objects.exclude(serving_release=None).values("serving_release")
    runs = Replica.objects.filter(plane=plane_id).values("release")
    releases = Release.objects.filter(
        Q(pk__in=runs) | on_plane & (Q(pk__in=comes) | Q(pk__in=serves)),
        cell__project=project,
        cell__project__tenant=tenant,
    )
    images = releases.values_list("images", flat=True)
    return any(image.endswith(f"@{digest}") for named in images for image in named.values())


def underway(which: Q | None = None) -> list[tuple[int, Specification]]:
    """Cell and specification of each release that waits or is on its way."""
    rows = Deployment.objects.exclude(state__in=Deployment.ENDED).exclude(release=None)
    if which is not None:
        rows = rows.filter(which)
    found = rows.values_list("cell", "release__specification")
    return [(cell, Specification.from_dict(document)) for cell, document in found]


def deployments(cell: Cell) -> QuerySet[Deployment]:
    return cell.deployments.select_related("release").order_by("-id")


def get_deployment(cell: Cell, number: int) -> Deployment:
    """A deployment of this cell."""
    found = cell.deployments.select_related("release", "cell__project__tenant").filter(pk=number).first()
    if found is None:
        raise not_found("deployment")
    return found


def releases(cell: Cell) -> QuerySet[Release]:
    return cell.releases.select_related("rolled_back_from", "promoted_from__cell__environment").order_by(
        "-number"
    )


def replicas(cell: Cell) -> QuerySet[Replica]:
    return (
        Replica.objects.filter(workload__cell=cell)
        .exclude(wanted=Replica.Wanted.ONCE)
        .select_related("workload__component", "release")
        .order_by("workload__component__name", "number", "pk")
    )


def runs(cell: Cell, component: str = "") -> QuerySet[Run]:
    rows = Run.objects.filter(workload__cell=cell).select_related(
        "workload__component", "workload__cell__environment__plane", "release"
    )
    return (rows.filter(workload__component__name=component) if component else rows).order_by("-id")


def get_run(cell: Cell, number: int) -> Run:
    """A run of this cell."""
    found = runs(cell).filter(pk=number).first()
    if found is None:
        raise not_found("run")
    return found


def schedules(cell: Cell) -> list[tuple[Schedule, Run | None]]:
    """Schedules by their component's name, with the last run that a schedule made."""
    rows = Schedule.objects.filter(workload__cell=cell).select_related("workload__component")
    last = runs(cell).filter(kind=Run.Kind.CRON).order_by("workload", "-id").distinct("workload")
    known = {run.workload_id: run for run in last}
    return [(row, known.get(row.workload_id)) for row in rows.order_by("workload__component__name")]
