"""Names of people's things, validated once: they become host names, paths and labels."""

from __future__ import annotations

import re

from controlplane.errors import CytoplaneError

_NAME = re.compile(r"[a-z](?:[a-z0-9-]{0,38}[a-z0-9])?")
#: Would be mistaken for the platform's own pages and hosts.
RESERVED = frozenset(
    [
        "admin",
        "api",
        "git",
        "static",
        "sign-in",
        "sign-out",
        "healthz",
        "readyz",
        "www",
        "portal",
        "cytoplane",
        "new",
        "settings",
        "why",
    ]
)


def validate(name: str) -> str:
    """The name, or the error `invalid-name`. ``--`` is kept for the platform's host names."""
    if not isinstance(name, str) or not _NAME.fullmatch(name) or "--" in name:
        raise CytoplaneError("invalid-name", name=str(name)[:60])
    return name


def validate_tenant(name: str) -> str:
    """A tenant's name: it is also the first part of the portal's paths."""
    if validate(name) in RESERVED:
        raise CytoplaneError("name-taken", kind="tenant", name=name)
    return name
