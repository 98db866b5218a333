"""A namespace that doesn't go because something in it says that somebody must do something first.

Who may write objects in a cell's namespace may give them finalizers that nobody will ever answer; the
namespace, its quota and its number would stay for ever. What is being deleted there has no other use.
"""

from __future__ import annotations

from dataplane.drivers.interface import Denied
from dataplane.drivers.kubernetes.api import Api, Object

#: Kinds that a tenant's rights could reach, with their versions.
_KINDS = (
    ("v1", "Pod"),
    ("v1", "ConfigMap"),
    ("v1", "Secret"),
    ("v1", "ServiceAccount"),
    ("v1", "PersistentVolumeClaim"),
    ("v1", "Service"),
    ("apps/v1", "Deployment"),
    ("apps/v1", "ReplicaSet"),
    ("networking.k8s.io/v1", "NetworkPolicy"),
)


def stuck(namespace: Object) -> bool:
    """Whether the namespace waits for finalizers of what is in it."""
    conditions = (namespace.get("status") or {}).get("conditions") or []
    return any(
        c.get("type") == "NamespaceFinalizersRemaining" and c.get("status") == "True" for c in conditions
    )


def free(api: Api, location: str) -> int:
    """Take the finalizers off what is being deleted in the namespace; how many objects had some."""
    freed = 0
    for version, kind in _KINDS:
        try:
            freed += _freed(api, version, kind, location)
        except Denied:
            # A plane's own controller has no rights in what it never makes. The cluster is the tenant's.
            continue
    return freed


def _freed(api: Api, version: str, kind: str, location: str) -> int:
    freed = 0
    for item in api.list(version, kind, location):
        metadata = item["metadata"]
        if metadata.get("deletionTimestamp") and metadata.get("finalizers"):
            api.merge(version, kind, location, metadata["name"], {"metadata": {"finalizers": None}})
            freed += 1
    return freed
