"""What components may use of the network, from desired state into the kernel and back as figures."""

from __future__ import annotations

from typing import Any

from bpf.tables import Limit, Tables


def apply(tables: Tables, boundary: dict[str, Any]) -> None:
    """Put exactly the limits of desired state in force. Raises ``OSError`` if they don't all fit."""
    # States that were kept from before limits have none.
    tables.set_limits({int(text): Limit(*most) for text, most in boundary.get("limits", {}).items()})


def usage(tables: Tables, boundary: dict[str, Any]) -> list[dict[str, int]]:
    """Open connections of the plane's limited components, in the form of a report."""
    limited = {int(text): Limit(*most) for text, most in boundary.get("limits", {}).items()}
    return [
        {"identity": identity, "connections": used.connections, "limit": limited[identity].connections}
        for identity, used in sorted(tables.usage().items())
        if identity in limited
    ]
