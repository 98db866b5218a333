"""What forms have in common: do it, say what happened, go where it can be seen."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect

from controlplane.errors import CytoplaneError


def perform(
    request: HttpRequest,
    action: Callable[[], Any],
    *,
    back: str,
    done: str = "",
    then: Callable[[Any], str] | None = None,
) -> HttpResponse:
    """Run an action. It leads to ``then(result)`` or ``back`` with ``done`` as message; a failure leads
    back with its sentence, next step and id."""
    try:
        result = action()
    except CytoplaneError as error:
        if error.status in (401, 404):
            raise
        messages.add_message(
            request,
            messages.ERROR,
            f"{error.message} {error.next} ({error.code}, request {getattr(request, 'request_id', '')})",
            extra_tags="bad",
        )
        return HttpResponseRedirect(back)
    if done:
        messages.add_message(request, messages.SUCCESS, done, extra_tags="ok")
    return HttpResponseRedirect(then(result) if then else back)
