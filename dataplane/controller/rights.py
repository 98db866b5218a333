"""The controller's rights in a cell's namespace: it has them there and nowhere else.

Kubernetes can't name namespaces by pattern, so none of the chart's rights reaches into them. The
controller makes the namespace, as Helm would have, and binds itself to the role ``cytoplane-cell`` in it
before the driver comes.
"""

from __future__ import annotations

import time

from dataplane.drivers.interface import CellState, CellStatus, Denied, PlacedCell
from dataplane.drivers.kubernetes.api import Api, Object
from dataplane.drivers.kubernetes.drift import owned, with_ownership

ROLE, BINDING, ACCOUNT = "cytoplane-cell", "plane-controller", "controller"
_VERSION = "rbac.authorization.k8s.io/v1"
#: Until a new binding is in force on the API server, seconds.
_SETTLING = 5.0


def grant(api: Api, cell: PlacedCell, namespace: str) -> CellStatus | None:
    """Be able to work in the cell's place; a status where there is nothing to do but wait.

    ``namespace``: the controller's own. A namespace of somebody else's is left alone: the driver says so.
    """
    found = api.get("v1", "Namespace", "", cell.location)
    if found is None:
        api.create(_namespace(cell))
    elif found["metadata"].get("deletionTimestamp"):
        return CellStatus(CellState.REMOVING)
    elif not owned(found, cell.location, cell.number):
        return None
    if api.get(_VERSION, "RoleBinding", cell.location, BINDING) is None:
        api.create(_binding(cell, namespace))
        _settled(api, cell)
    return None


def _namespace(cell: PlacedCell) -> Object:
    """The chart's own comes over it: labels of Pod Security among others."""
    labels = {"cytoplane.dev/cell": str(cell.number), "app.kubernetes.io/part-of": "cytoplane"}
    document = {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": cell.location, "labels": labels},
    }
    return with_ownership(document, cell.location)


def _binding(cell: PlacedCell, namespace: str) -> Object:
    labels = {"app.kubernetes.io/part-of": "cytoplane"}
    return {
        "apiVersion": _VERSION,
        "kind": "RoleBinding",
        "metadata": {"name": BINDING, "namespace": cell.location, "labels": labels},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": ROLE},
        "subjects": [{"kind": "ServiceAccount", "name": ACCOUNT, "namespace": namespace}],
    }


def _settled(api: Api, cell: PlacedCell) -> None:
    """Wait until the API server knows of the binding. Raises ``Denied`` if it never does."""
    end = time.monotonic() + _SETTLING
    while True:
        try:
            api.list("v1", "Secret", cell.location, limit=1)
            return
        except Denied:
            if time.monotonic() > end:
                raise
            time.sleep(0.1)
