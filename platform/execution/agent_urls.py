"""Addresses below ``/agent/sessions`` of the agents' listener."""

from django.urls import path

from execution import agent_views

urlpatterns = [
    path("", agent_views.offered),
    path("/<int:number>/claim", agent_views.claim),
    path("/<int:number>/input", agent_views.read),
    path("/<int:number>/output", agent_views.write),
    path("/<int:number>/end", agent_views.end),
]
