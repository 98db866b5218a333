"""Services of desired state as the kernel's tables take them: those backends that may serve, with their shares."""

from __future__ import annotations

from typing import Any

from bpf.tables import Backend, Service


def services(entries: list[dict[str, Any]], serving: set[str] | None) -> list[Service]:
    """``serving``: ids of replicas that may get new connections; None for all."""
    return [_service(entry, serving) for entry in entries]


def _service(entry: dict[str, Any], serving: set[str] | None) -> Service:
    known = entry["backends"]
    # States that were kept from before shares have none: all the same.
    weights = entry.get("weights") or [1] * len(known)
    backends = tuple(
        Backend(address, port, weight)
        for (owner, address, port), weight in zip(known, weights, strict=True)
        if serving is None or owner == "gateway" or owner in serving
    )
    return Service(
        entry["consumer"],
        entry["address"],
        entry["port"],
        entry["protocol"],
        backends,
        entry.get("choice", "random"),
        entry.get("affinity", 0),
    )
