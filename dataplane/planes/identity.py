"""Which node is asking: by the certificate that the control gateway verified and forwarded."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from functools import wraps

from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from django.views.decorators.csrf import csrf_exempt

from controlplane.errors import CytoplaneError
from dataplane.planes.models import Certificate, Node

_HASH = re.compile(r"(?:^|;)Hash=([0-9a-f]{64})(?:;|$)")


def node_of(
    request: HttpRequest, *, expired: bool = False, kind: str | Collection[str] | None = None
) -> Node:
    """The node of the request's certificate, looked up each time so that revoking works at once.

    ``kind``: which kinds of node will do, None for any.
    ``expired``: whether a certificate that has ended, but was never revoked, will do.
    """
    match = _HASH.search(request.headers.get("X-Forwarded-Client-Cert", ""))
    row = (
        Certificate.objects.select_related("node__plane").filter(fingerprint=match.group(1)).first()
        if match
        else None
    )
    if row is None or row.revoked_at or (row.expires_at <= timezone.now() and not expired):
        raise CytoplaneError("certificate-refused")
    if kind and row.node.kind not in ([kind] if isinstance(kind, str) else kind):
        raise CytoplaneError("certificate-refused")
    return row.node


def node_view(kind: str | Collection[str] | None = None, expired: bool = False) -> Callable:
    """A view that gets the node instead of guessing it from what the caller says."""

    def decorate(view: Callable) -> Callable:
        @csrf_exempt
        @wraps(view)
        def inner(request: HttpRequest, *args, **kwargs) -> HttpResponse:
            return view(request, node_of(request, expired=expired, kind=kind), *args, **kwargs)

        return inner

    return decorate
