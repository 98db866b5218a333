"""Signing in and out, and the account's tokens."""

from __future__ import annotations

from django.contrib.auth import login, logout
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.utils.http import url_has_allowed_host_and_scheme
from django.views.decorators.http import require_http_methods, require_POST

from controlplane.errors import CytoplaneError
from tenants import actions, queries, signin
from tenants.policy import SCOPES, Actor, get_tenant, visible_tenants
from web.access import signed_in
from web.forms import perform


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
                signin.address_of(request),
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


@require_http_methods(["GET", "POST"])
@signed_in
def tokens(request: HttpRequest, actor: Actor) -> HttpResponse:
    """The account's tokens; a new one is shown once, in the answer to the form that made it."""
    context: dict = {"crumb": "Your tokens", "scopes": SCOPES, "tenants": visible_tenants(actor)}
    status = 200
    if request.method == "POST":
        try:
            context["token"], context["secret"] = _create_token(request, actor)
        except CytoplaneError as error:
            context["error"], status = error, error.status
    context["tokens"] = queries.tokens_of(actor.user)
    return render(request, "web/tokens.html", context, status=status)


def _create_token(request: HttpRequest, actor: Actor):  # type: ignore[no-untyped-def]
    days = request.POST.get("days", "")
    slug = request.POST.get("tenant", "")
    return actions.create_token(
        acting_user=actor,
        name=request.POST.get("name", "").strip(),
        scopes=request.POST.getlist("scopes"),
        days=int(days) if days.isascii() and days.isdigit() else 0,
        tenant=get_tenant(actor, slug) if slug else None,
    )


@require_POST
@signed_in
def revoke_token(request: HttpRequest, actor: Actor, number: int) -> HttpResponse:
    """End a token at once."""
    return perform(
        request,
        lambda: actions.revoke_token(acting_user=actor, token_id=number),
        back="/-/tokens",
        done="The token is revoked.",
    )
