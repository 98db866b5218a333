"""The form in which nodes read desired state: what runs, and the compiler's result."""

from __future__ import annotations

from typing import Any

from cells.boundary.encoding import encode
from cells.specification import Specification
from dataplane import addresses
from dataplane.planes import pods
from dataplane.planes.reading import Rows
from delivery.models import Replica
from infra.config import Config

__all__ = ["encode", "endpoints"]
_NO_PROBE = {"type": "none", "port": 0, "path": "/", "interval": 2, "timeout": 2, "grace": 60}


def endpoints(rows: Rows, config: Config) -> dict[int, list[dict[str, Any]]]:
    """Cell's number → what runs of it, for the node that runs it."""
    found: dict[int, list[dict[str, Any]]] = {cell.number: [] for cell in rows.cells}
    for row in rows.replicas:
        entry = _endpoint(row, config)
        if location := rows.locations.get(entry["cell"]):
            entry["pod"] = pods.of(location)
        found[entry["cell"]].append(entry)
    return found


def _endpoint(row: Replica, config: Config) -> dict[str, Any]:
    cell = row.workload.cell
    name = row.workload.component.name
    component = Specification.from_dict(row.release.specification).components[name]
    pair = addresses.workload(config, row.address_index)
    health = component.health
    entry = {
        "id": f"r{row.pk}",
        "number": row.address_index,
        "identity": row.workload.identity,
        "cell": cell.number,
        "v4": pair.v4,
        "v6": pair.v6,
        "translate": component.network.services,
        "state": "drain" if row.wanted == Replica.Wanted.DRAIN else "run",
        "process": {
            "image": row.release.images[name],
            "command": ["/bin/sh", "-c", component.command] if component.command else None,
            "environment": {"release": row.release_id, "component": name},
            "limits": {"memory": component.limits.memory * 2**20, "cpu": component.limits.cpu, "pids": 512},
            "stop_grace": 10,
            "probe": {
                "type": health.type,
                "port": health.port,
                "path": health.path,
                "interval": health.interval,
                "timeout": health.timeout,
                "grace": health.grace,
            },
        },
        "labels": {
            "tenant": cell.project.tenant.slug,
            "project": cell.project.slug,
            "environment": cell.environment.name,
            "component": name,
            "release": row.release.number,
        },
    }
    if row.once is not None:
        entry["process"] |= _once(row.once)
    elif scaling := component.scaling:
        # What its number follows, so that nodes count it.
        entry["measure"] = [name for name in ("cpu", "requests") if getattr(scaling, name)]
    return entry


def _once(once: dict[str, Any]) -> dict[str, Any]:
    """What differs where a process is started once and ends. Words of its own are filled in when they are sent."""
    found = {"restart": "never", "run": once["run"], "timeout": once["timeout"], "probe": _NO_PROBE}
    return found | ({"command": None, "sealed": True} if once["own"] else {})
