"""Addresses of the portal's server: REST API, git, health, and the portal itself."""

from django.urls import include, path

from api.root import api, missing
from controlplane import health

urlpatterns = [
    path("healthz", health.alive),
    path("readyz", health.ready),
    path("api/v1/", api.urls),
    path("api/<path:rest>", missing),
    path("", include("web.urls")),
]
