"""Addresses of the agents' listener."""

from django.urls import include, path, re_path

from dataplane.planes import agent_views

urlpatterns = [
    path("authority", agent_views.authority_certificate),
    path("enrol", agent_views.enrol),
    path("renew", agent_views.renew),
    path("agent/desired", agent_views.desired),
    path("agent/acknowledge", agent_views.acknowledge),
    path("agent/report", agent_views.report),
    path("builder/", include("delivery.builder_urls")),
    re_path(r"^authz/(?P<rest>.*)$", agent_views.authorise_image),
]
