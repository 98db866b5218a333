"""The REST API: one router for each app, one form of errors."""

from __future__ import annotations

from typing import Any

from django.db import DataError
from django.http import HttpRequest, HttpResponse
from ninja import NinjaAPI
from ninja.errors import HttpError, ValidationError

from api.auth import authenticate
from api.document import complete
from controlplane.errors import CytoplaneError
from controlplane.middleware import unstorable
from dataplane.planes.api import router as planes
from delivery.api import router as delivery
from execution.api import router as execution
from projects.api import router as projects
from telemetry.api import router as telemetry
from tenants.api import public as sign_in
from tenants.api import router as tenants


class Api(NinjaAPI):
    """ninja's, whose document also tells of authentication and errors."""

    def get_openapi_schema(self, **more: Any) -> Any:  # type: ignore[override]
        return complete(super().get_openapi_schema(**more), PUBLIC)


#: Operations that need no authentication.
PUBLIC = {"sign_in"}

api = Api(
    title="Cytoplane",
    version="1",
    description=(
        "Everything that portal and CLI do. Errors are "
        '`{"error": {"id", "message", "next", "request_id"}}`; what isn\'t yours is answered like what '
        "doesn't exist. Authenticate with `Authorization: Bearer <token>`."
    ),
    auth=authenticate,
    urls_namespace="api",
    docs_url=None,
)
api.add_router("", sign_in, auth=None, tags=["sign-in"])
api.add_router("", tenants, tags=["tenants"])
api.add_router("", projects, tags=["projects"])
api.add_router("", delivery, tags=["delivery"])
api.add_router("", telemetry, tags=["telemetry"])
api.add_router("", execution, tags=["sessions"])
api.add_router("", planes, tags=["planes"])


@api.exception_handler(CytoplaneError)
def on_error(request: HttpRequest, error: CytoplaneError) -> HttpResponse:
    return api.create_response(
        request, error.as_dict(getattr(request, "request_id", "")), status=error.status
    )


@api.exception_handler(ValidationError)
def on_invalid(request: HttpRequest, error: ValidationError) -> HttpResponse:
    first = error.errors[0] if error.errors else {}
    field = ".".join(str(part) for part in first.get("loc", ())[1:]) or "the request"
    return on_error(
        request, CytoplaneError("invalid", field=field, message=f"{field}: {first.get('msg', 'is wrong')}.")
    )


@api.exception_handler(HttpError)
def on_unreadable(request: HttpRequest, error: HttpError) -> HttpResponse:
    """A body that isn't JSON never gets as far as validation."""
    return on_error(request, CytoplaneError("invalid", field="the request", message=f"{error.message}."))


@api.exception_handler(DataError)
@api.exception_handler(UnicodeEncodeError)
def on_unstorable(request: HttpRequest, error: DataError | UnicodeEncodeError) -> HttpResponse:
    return on_error(request, unstorable())


def missing(request: HttpRequest, rest: str = "") -> HttpResponse:
    """An address below ``/api/`` that nothing is at, told like every other error."""
    raise CytoplaneError("not-found", kind="operation")
