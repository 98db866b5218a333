"""The compiler's result in the form that nodes read."""

from __future__ import annotations

from typing import Any

from cells.boundary.model import Boundary


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
