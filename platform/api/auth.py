"""Who calls the REST API: a bearer token, or the portal's session with its CSRF protection."""

from __future__ import annotations

from django.http import HttpRequest
from django.middleware.csrf import CsrfViewMiddleware

from controlplane.errors import CytoplaneError
from tenants import tokens
from tenants.policy import Actor, actor_for


class _Csrf(CsrfViewMiddleware):
    def _reject(self, request: HttpRequest, reason: str):  # type: ignore[no-untyped-def]
        return reason


def authenticate(request: HttpRequest) -> Actor:
    """The actor of a request; raises `not-signed-in` or `token-invalid`."""
    request_id = getattr(request, "request_id", "")
    scheme, _, secret = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        token = tokens.resolve(secret.strip())
        return actor_for(token.user, token, request_id=request_id)
    user = getattr(request, "user", None)
    if user is None or not user.is_authenticated or not user.is_active:
        raise CytoplaneError("not-signed-in")
    if request.method not in ("GET", "HEAD", "OPTIONS"):
        check = _Csrf(lambda r: None)  # type: ignore[arg-type,return-value]
        check.process_request(request)
        if check.process_view(request, lambda: None, (), {}):
            raise CytoplaneError("csrf")
    return actor_for(user, request_id=request_id)
