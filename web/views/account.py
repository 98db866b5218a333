"""Signing in and out."""

from __future__ import annotations

from django.contrib.auth import login, logout
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.utils.http import url_has_allowed_host_and_scheme
from django.views.decorators.http import require_http_methods, require_POST

from controlplane.errors import CytoplaneError
from tenants import signin


def _target(request: HttpRequest, wanted: str) -> str:
    """Where to go afterwards: only within the portal."""
    allowed = url_has_allowed_host_and_scheme(wanted, allowed_hosts={request.get_host()})
    return wanted if allowed and wanted.startswith("/") else "/"


@require_http_methods(["GET", "POST"])
def sign_in(request: HttpRequest) -> HttpResponse:
    """The door."""
    following = _target(request, request.POST.get("next") or request.GET.get("next") or "/")
    if request.user.is_authenticated:
        return HttpResponseRedirect(following)
    context = {"next": following, "email": request.POST.get("email", "")}
    if request.method == "POST":
        try:
            user = signin.verify(
                request.POST.get("email", ""),
                request.POST.get("password", ""),
                request.META.get("REMOTE_ADDR", ""),
            )
        except CytoplaneError as error:
            return render(request, "web/sign_in.html", {**context, "error": error}, status=error.status)
        login(request, user)
        return HttpResponseRedirect(following)
    return render(request, "web/sign_in.html", context)


@require_POST
def sign_out(request: HttpRequest) -> HttpResponse:
    """End the session."""
    logout(request)
    return HttpResponseRedirect("/sign-in")
