"""Addresses for builders, on the agents' listener."""

from django.urls import path

from delivery import builder_views

urlpatterns = [
    path("next", builder_views.following),
    path("builds/<int:number>/source", builder_views.source),
    path("builds/<int:number>/log", builder_views.log_lines),
    path("builds/<int:number>/heartbeat", builder_views.heartbeat),
    path("builds/<int:number>/result", builder_views.result),
]
