"""Rights in a cell's namespace for who drives it with few rights elsewhere: a plane's own controller.

The controller may make namespaces and bind itself to one role (``cytoplane-cell`` of the chart data-plane).
So the namespace and that binding come first, and everything else by it. An administrator needs none of it.
"""

from __future__ import annotations

from dataplane.drivers.interface import PlacedCell
from dataplane.drivers.kubernetes.api import Api, Object
from dataplane.drivers.kubernetes.drift import with_ownership

ROLE, NAME = "cytoplane-cell", "controller"
_RBAC = "rbac.authorization.k8s.io"


def namespace(cell: PlacedCell) -> Object:
    """As the chart makes it, so that Helm takes it over; the chart's own labels follow with it."""
    labels = {
        "cytoplane.dev/cell": str(cell.number),
        "cytoplane.dev/tenant": cell.tenant,
        "cytoplane.dev/project": cell.project,
        "cytoplane.dev/environment": cell.environment,
    }
    metadata = {"name": cell.location, "labels": labels}
    return with_ownership({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}, cell.location)


def binding(cell: PlacedCell, account: str) -> Object:
    """``account`` is ``namespace:name``."""
    place, _, name = account.partition(":")
    return {
        "apiVersion": f"{_RBAC}/v1",
        "kind": "RoleBinding",
        "metadata": {"name": NAME, "namespace": cell.location},
        "roleRef": {"apiGroup": _RBAC, "kind": "ClusterRole", "name": ROLE},
        "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": place}],
    }


def take(api: Api, cell: PlacedCell, account: str, *, there: bool) -> None:
    """Make the namespace unless it is ``there``, and the binding in it. Raises ``DriverError``."""
    if not there:
        api.create(namespace(cell))
    wanted = binding(cell, account)
    if api.get(wanted["apiVersion"], "RoleBinding", cell.location, NAME) is None:
        api.create(wanted)
