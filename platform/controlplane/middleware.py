"""What every request passes: an id, security headers, errors as sentences."""

from __future__ import annotations

import logging
import secrets

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.db import DataError, InterfaceError, OperationalError
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render

from controlplane.errors import CytoplaneError

log = logging.getLogger("cytoplane.request")

CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)


class _Both:
    """A middleware that runs natively in both sync and async chains."""

    async_capable = True
    sync_capable = True

    def __init__(self, get_response) -> None:
        self.get_response = get_response
        self.is_async = iscoroutinefunction(get_response)
        if self.is_async:
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest):
        self.before(request)
        if self.is_async:
            return self._call_async(request)
        return self.after(request, self.get_response(request))

    async def _call_async(self, request: HttpRequest):
        return self.after(request, await self.get_response(request))

    def before(self, request: HttpRequest) -> None: ...

    def after(self, request: HttpRequest, response: HttpResponse) -> HttpResponse:
        return response


class RequestId(_Both):
    """Gives each request an id that errors, audit events and logs carry."""

    def before(self, request: HttpRequest) -> None:
        request.request_id = secrets.token_hex(8)  # type: ignore[attr-defined]

    def after(self, request: HttpRequest, response: HttpResponse) -> HttpResponse:
        response["X-Request-Id"] = request.request_id  # type: ignore[attr-defined]
        return response


class Surface(_Both):
    """Requests of the agents' listener have addresses of their own and never those of the portal."""

    def before(self, request: HttpRequest) -> None:
        if getattr(request, "scope", {}).get("surface") == "agents":
            request.urlconf = "dataplane.planes.agent_urls"  # type: ignore[attr-defined]


class SecurityHeaders(_Both):
    """A content security policy without inline code, and no caching of what is somebody's own."""

    def after(self, request: HttpRequest, response: HttpResponse) -> HttpResponse:
        response.setdefault("Content-Security-Policy", CSP)
        response.setdefault("Permissions-Policy", "camera=(), microphone=(), geolocation=()")
        if not request.path.startswith("/static/"):
            response.setdefault("Cache-Control", "no-store")
        return response


class Errors(_Both):
    """Turns catalogue errors into pages or JSON, and anything else into `internal` with the id."""

    def after(self, request: HttpRequest, response: HttpResponse) -> HttpResponse:
        """A method that an operation doesn't have is refused by the router, before anybody can raise."""
        if response.status_code != 405 or not request.path.startswith("/api/"):
            return response
        allowed = response.get("Allow", "")
        told = error_response(
            request, CytoplaneError("method", method=request.method, allowed=allowed or "GET")
        )
        told["Allow"] = allowed
        return told

    def process_exception(self, request: HttpRequest, error: Exception) -> HttpResponse | None:
        if not isinstance(error, CytoplaneError):
            log.exception("request %s failed", getattr(request, "request_id", "?"))
            error = _told(error)
        return error_response(request, error)


def _told(error: Exception) -> CytoplaneError:
    """What somebody is told of a failure that is in no catalogue."""
    if isinstance(error, DataError | UnicodeEncodeError):
        return unstorable()
    away = isinstance(error, OperationalError | InterfaceError)
    return CytoplaneError("unavailable", part="the database") if away else CytoplaneError("internal")


def unstorable() -> CytoplaneError:
    """PostgreSQL's text is UTF-8 without zero bytes, and its columns have a length; requests can say more."""
    message = "A value is too long, or holds a zero byte or half a character."
    return CytoplaneError("invalid", field="the request", message=message)


def error_response(request: HttpRequest, error: CytoplaneError) -> HttpResponse:
    """The error as JSON for programs and as a page for people."""
    request_id = getattr(request, "request_id", "")
    if request.path.startswith("/api/") or "text/html" not in request.headers.get("Accept", ""):
        return JsonResponse(error.as_dict(request_id), status=error.status)
    context = {"error": error, "request_id": request_id}
    return render(request, "web/error.html", context, status=error.status)


def csrf_failure(request: HttpRequest, reason: str = "") -> HttpResponse:
    """A form from elsewhere, or a session that ended meanwhile."""
    return error_response(request, CytoplaneError("csrf"))
