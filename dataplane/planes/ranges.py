"""Which addresses a plane's nodes use: the installation's, or those of the plane's own number."""

from __future__ import annotations

from dataclasses import replace

from django.conf import settings

from dataplane.planes.models import Plane
from infra.config import Config


def config_of(plane: Plane) -> Config:
    """The installation's settings as they are on the plane."""
    config = settings.CONFIG
    return config if plane.net is None or plane.net == config.net else replace(config, net=plane.net)
