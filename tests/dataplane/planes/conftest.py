"""A plane without tenants: all that enrolment and certificates are about."""

from __future__ import annotations

import pytest

from dataplane.planes.models import Plane
from tests.factories import World


class Bare(World):
    """A shared machine plane and whoever enrols; nobody lives there."""

    def __init__(self) -> None:
        self.plane = Plane.objects.create(name="shared", engine=Plane.Engine.MACHINE)


@pytest.fixture
def bare(db: None) -> Bare:
    return Bare()
