"""What every operation has in common, written into the OpenAPI document: authentication and errors."""

from __future__ import annotations

from typing import Any

_ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["id", "message", "next", "request_id"],
            "properties": {
                "id": {"type": "string", "description": "Stable: what a program branches on."},
                "message": {"type": "string", "description": "A sentence for a person."},
                "next": {"type": "string", "description": "What to do about it."},
                "request_id": {"type": "string", "description": "As in the header X-Request-Id and the log."},
            },
        }
    },
}
#: status → what it means; the ids of the errors are in docs/errors.md.
MEANINGS = {
    400: "The body isn't JSON.",
    401: "Not signed in; the token is unknown, expired or revoked.",
    403: "The role, the token's scopes or the tenant's state don't allow it.",
    404: "There is no such thing that the caller can see.",
    409: "It doesn't fit the current state, or a quota is used up.",
    413: "The body is larger than 4 MiB.",
    422: "What was sent isn't valid; `next` names the field.",
    429: "Too many failed sign-ins.",
    500: "Something failed on the platform's side.",
    503: "A part of the platform isn't reachable.",
}
_BEARER = {
    "type": "http",
    "scheme": "bearer",
    "description": "A token of `POST /tokens` or `POST /me/tokens`.",
}
_SESSION = {
    "type": "apiKey",
    "in": "cookie",
    "name": "sessionid",
    "description": "The portal's session. Anything but reading also needs its token in X-CSRFToken.",
}


def _statuses(operation: dict[str, Any], method: str, public: bool) -> list[int]:
    """The errors that an operation can answer with."""
    parameters = operation.get("parameters", [])
    found = {500, 503}
    if public:
        found |= {401, 429}
    else:
        found |= {401, 403}
    named = any(p["in"] == "path" for p in parameters) or "requestBody" in operation
    # Operations of platform admins aren't there for anybody else.
    if not public and (named or "planes" in operation.get("tags", [])):
        found.add(404)
    if parameters or "requestBody" in operation:
        found.add(422)
    if "requestBody" in operation:
        found |= {400, 413}
    if method != "get" and not public:
        found.add(409)
    return sorted(found)


def complete(document: dict[str, Any], public: set[str]) -> dict[str, Any]:
    """Add authentication and errors. ``public`` are ids of operations that need no authentication."""
    components = document.setdefault("components", {})
    components.setdefault("schemas", {})["Error"] = _ERROR
    components["securitySchemes"] = {"token": _BEARER, "session": _SESSION}
    components["responses"] = {
        f"Error{status}": {
            "description": text,
            "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
        }
        for status, text in MEANINGS.items()
    }
    document["security"] = [{"token": []}, {"session": []}]
    for methods in document["paths"].values():
        for method, operation in methods.items():
            is_public = operation["operationId"] in public
            if is_public:
                operation["security"] = []
            operation["responses"] = {str(status): told for status, told in operation["responses"].items()}
            for status in _statuses(operation, method, is_public):
                operation["responses"][str(status)] = {"$ref": f"#/components/responses/Error{status}"}
    return document
