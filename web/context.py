"""What every page's frame needs, worked out only when a template asks for it."""

from __future__ import annotations

from django.http import HttpRequest
from django.utils.functional import SimpleLazyObject

THEMES = ("auto", "light", "dark")


def portal(request: HttpRequest) -> dict:
    """``theme`` from its cookie; ``frame`` (user, tenants to switch to) by one query when used."""
    theme = request.COOKIES.get("cy_theme", "auto")
    return {
        "theme": theme if theme in THEMES else "auto",
        "my_tenants": SimpleLazyObject(lambda: _tenants(request)),
    }


def _tenants(request: HttpRequest) -> list:
    from web.access import actor_of

    actor = actor_of(request)
    if actor is None:
        return []
    from tenants.policy import visible_tenants

    return list(visible_tenants(actor)[:100])
