"""Desired state of a plane as a numbered document.

Rebuilding is idempotent and serialised for each plane; a new generation exists only if the document
differs. Secrets aren't in it: ``fill`` puts them in when the document is sent to the node.
"""

from __future__ import annotations

import json
import logging
from typing import Any

import redis
from django.conf import settings
from django.db import connection, transaction

from cells.boundary import Boundary, compile_topology
from cells.boundary.model import Topology
from cells.specification import Specification
from dataplane import addresses
from dataplane.planes import edge
from dataplane.planes import topology as topologies
from dataplane.planes.models import Plane, Snapshot
from delivery import environment
from delivery.models import Release, Replica
from infra.config import Config

log = logging.getLogger("cytoplane.planes")
KEPT = 5
_LOCK_CLASS = 7001


def topology(plane: Plane) -> Topology:
    """The compiler's input for a plane; what explanations are made from."""
    return topologies.build(plane)


def channel(plane_id: int) -> str:
    """Redis channel that wakes the plane's long polls."""
    return f"plane:{plane_id}"


def rebuild(plane_id: int) -> int:
    """Make a new snapshot if anything changed; the plane's newest generation."""
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(%s, %s)", [_LOCK_CLASS, plane_id])
        plane = Plane.objects.filter(pk=plane_id).first()
        if plane is None:
            return 0
        document = json.loads(json.dumps(_document(plane, settings.CONFIG)))
        newest = Snapshot.objects.filter(plane=plane, generation=plane.generation).first()
        if newest is not None and newest.document == document:
            return plane.generation
        plane.generation += 1
        plane.save(update_fields=["generation"])
        Snapshot.objects.create(plane=plane, generation=plane.generation, document=document)
        Snapshot.objects.filter(plane=plane, generation__lte=plane.generation - KEPT).delete()
        transaction.on_commit(lambda: _wake(plane_id, plane.generation))
        return plane.generation


def _wake(plane_id: int, generation: int) -> None:
    try:
        redis.Redis.from_url(settings.REDIS_URL).publish(channel(plane_id), generation)
    except redis.RedisError:
        log.warning("Redis is away; nodes of plane %s see the change at their next poll", plane_id)


def _document(plane: Plane, config: Config) -> dict[str, Any]:
    boundary = compile_topology(topologies.build(plane, config))
    return {
        "plane": plane.pk,
        "endpoints": _endpoints(plane, config),
        "boundary": encode(boundary),
        "edge": edge.document(),
    }


def _endpoints(plane: Plane, config: Config) -> list[dict[str, Any]]:
    rows = (
        Replica.objects.filter(plane=plane, wanted__in=topologies.RUNNING)
        .select_related(
            "workload__component", "workload__cell__project__tenant", "workload__cell__environment", "release"
        )
        .order_by("pk")
    )
    return [_endpoint(row, config) for row in rows]


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
    """The compiler's result in the form that nodes read."""
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
            for s in boundary.services
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
            "routes": [{"host": r.host, "cluster": r.cluster} for r in boundary.routes],
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
                for c in boundary.clusters
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
                for item in boundary.listeners
            ],
            "doors": [
                {
                    "name": item.name,
                    "address4": item.address4,
                    "address6": item.address6,
                    "port": item.port,
                    "hosts": list(item.hosts),
                }
                for item in boundary.doors
            ],
        },
    }


def newest(plane_id: int, after: int) -> dict[str, Any] | None:
    """The newest snapshot with its secrets filled in, if it is newer than ``after``."""
    row = Snapshot.objects.filter(plane_id=plane_id).order_by("-generation").first()
    # A node that claims more than there is has a state of another database: it gets this one.
    if row is None or row.generation == after:
        return None
    return fill(row)


def fill(row: Snapshot) -> dict[str, Any]:
    """The document with what processes get as their environment."""
    document = {**row.document, "generation": row.generation}
    wanted = {endpoint["process"]["environment"]["release"] for endpoint in document["endpoints"]}
    releases = Release.objects.select_related("cell__project__tenant", "cell__environment").in_bulk(wanted)
    opened = {pk: environment.of_release(release) for pk, release in releases.items()}
    for endpoint in document["endpoints"]:
        reference = endpoint["process"]["environment"]
        endpoint["process"]["environment"] = opened.get(reference["release"], {}).get(
            reference["component"], {}
        )
    return document
