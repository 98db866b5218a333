"""Addresses of the agents' listener."""

from django.urls import include, path, re_path

from dataplane.planes import agent_views, controller_views, gateways

urlpatterns = [
    path("authority", agent_views.authority_certificate),
    path("enrol", agent_views.enrol),
    path("join/<slug:kind>", agent_views.join_script),
    path("join/<slug:kind>/code", agent_views.join_code),
    path("renew", agent_views.renew),
    path("agent/node-token", controller_views.node_token),
    path("controller/plane", controller_views.plane),
    path("controller/places", controller_views.places),
    path("agent/gateway-certificate", gateways.issue),
    path("agent/desired", agent_views.desired),
    path("agent/acknowledge", agent_views.acknowledge),
    path("agent/report", agent_views.report),
    path("agent/sessions", include("execution.agent_urls")),
    path("builder/", include("delivery.builder_urls")),
    re_path(r"^authz/(?P<rest>.*)$", agent_views.authorise_image),
]
