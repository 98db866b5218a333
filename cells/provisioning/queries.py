"""Reads of places, for platform admins."""

from __future__ import annotations

from django.db.models import QuerySet

from cells.provisioning.models import Place
from controlplane.errors import not_found
from dataplane.planes.models import Plane
from tenants.policy import Actor, authorise_platform


def places(actor: Actor, plane: str) -> QuerySet[Place]:
    """The places on a plane, oldest first."""
    authorise_platform(actor)
    row = Plane.objects.filter(name=plane).first()
    if row is None:
        raise not_found("plane")
    return Place.objects.filter(plane=row).order_by("pk")
