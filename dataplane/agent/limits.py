"""What components may use of the network, from desired state into the kernel and back as figures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bpf.tables import Limit, Tables


def apply(tables: Tables, boundary: Mapping[str, Any]) -> None:
    """Put exactly the limits of desired state in force. Raises ``OSError`` if they don't all fit."""
    # States that were kept from before limits have none.
    tables.set_limits({int(text): Limit(*most) for text, most in boundary.get("limits", {}).items()})


def usage(tables: Tables, boundary: Mapping[str, Any]) -> dict[str, int]:
    """Identity → open TCP connections, of the plane's components that have a limit; for the node's report."""
    limited = boundary.get("limits", {})
    return {
        str(identity): used.connections
        for identity, used in sorted(tables.usage().items())
        if str(identity) in limited
    }
