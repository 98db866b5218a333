"""The form in which nodes read desired state: what runs, and the compiler's result."""

from __future__ import annotations

from typing import Any

from cells.boundary import Boundary
from cells.specification import Specification
from dataplane import addresses
from dataplane.planes import pods
from dataplane.planes.reading import Rows
from delivery.models import Replica
from infra.config import Config


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
    return {
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


def encode(boundary: Boundary) -> dict[str, Any]:
    """The compiler's result in the form that nodes read, in one order whatever came first."""
    return {
        "addresses": {address: list(owner) for address, owner in sorted(boundary.addresses.items())},
        "identities": {
            str(identity): {
                "cell": policy.cell,
                "policy": sorted(map(list, set(policy.policy))),
                "external": sorted(map(list, set(policy.external))),
            }
            for identity, policy in sorted(boundary.identities.items())
        },
        "services": [
            {
                "consumer": s.consumer,
                "address": s.address,
                "port": s.port,
                "protocol": s.protocol,
                "backends": [list(b) for b in s.backends],
                "choice": s.choice,
                "affinity": s.affinity,
                "weights": list(s.weights),
            }
            for s in sorted(boundary.services, key=lambda s: (s.consumer, s.address, s.port, s.protocol))
        ],
        "names": {
            str(identity): {name: list(pair) for name, pair in sorted(names.items())}
            for identity, names in sorted(boundary.names.items())
        },
        "external_names": {
            str(identity): sorted(map(list, set(entries)))
            for identity, entries in sorted(boundary.external_names.items())
        },
        "limits": {str(identity): list(most) for identity, most in sorted(boundary.limits.items())},
        "floor": [list(entry) for entry in boundary.floor],
        "gateway": {
            "routes": [{"host": r.host, "cluster": r.cluster} for r in sorted(boundary.routes, key=_host)],
            "clusters": [
                {
                    "name": c.name,
                    "protocol": c.protocol,
                    "backends": [list(b) for b in c.backends],
                    "source4": c.source4,
                    "source6": c.source6,
                    "sticky": c.sticky,
                    "weights": list(c.weights),
                }
                for c in sorted(boundary.clusters, key=_name)
            ],
            "listeners": [
                {
                    "name": item.name,
                    "address4": item.address4,
                    "address6": item.address6,
                    "port": item.port,
                    "cluster": item.cluster,
                    "caller": item.caller,
                }
                for item in sorted(boundary.listeners, key=_name)
            ],
            "doors": [
                {
                    "name": item.name,
                    "address4": item.address4,
                    "address6": item.address6,
                    "port": item.port,
                    "hosts": list(item.hosts),
                }
                for item in sorted(boundary.doors, key=_name)
            ],
        },
    }


def _name(entry: Any) -> str:
    return entry.name


def _host(route: Any) -> str:
    return route.host
