"""What a cell's processes and pulls must know, kept in the cell's namespace.

Through the API, never through the chart: Helm keeps values. One secret for each replica, made before
it and immutable, so that a process gets at each start what its replica was made with, as a container
on a machine does.
"""

from __future__ import annotations

import base64
import json

from dataplane.drivers.interface import PlacedCell
from dataplane.drivers.kubernetes.api import Api, Object
from dataplane.drivers.kubernetes.site import Site
from dataplane.drivers.kubernetes.workloads import secret_of, variables

PULL = "pull"
_WHAT = "cytoplane.dev/secret"
_ENVIRONMENT, _PULLING = "environment", "pull"


def keep(api: Api, cell: PlacedCell, site: Site) -> None:
    """Make what is missing. Call before what runs is made."""
    known = {item["metadata"]["name"]: item for item in _all(api, cell)}
    for endpoint in cell.endpoints:
        if secret_of(endpoint["id"]) not in known:
            _make(api, _environment(cell, endpoint["id"], variables(endpoint)))
    if pulls(cell, site):
        wanted = _pull(cell, site)
        if known.get(PULL, {}).get("data") != wanted["data"]:
            _make(api, wanted)


def _make(api: Api, secret: Object) -> None:
    """Whatever has the name: neither a secret's type nor what is immutable can be changed."""
    if not api.create(secret):
        api.delete("v1", "Secret", secret["metadata"]["namespace"], secret["metadata"]["name"])
        api.create(secret)


def sweep(api: Api, cell: PlacedCell, site: Site) -> None:
    """Delete what nobody uses any more. Call when what ran with it is gone from the cluster."""
    used = {secret_of(endpoint["id"]) for endpoint in cell.endpoints}
    used |= {PULL} if pulls(cell, site) else set()
    for item in _all(api, cell):
        if item["metadata"]["name"] not in used:
            api.delete("v1", "Secret", cell.location, item["metadata"]["name"])


def problems(api: Api, cell: PlacedCell, site: Site) -> list[str]:
    """Sentences about what is missing or too much."""
    wanted = {secret_of(endpoint["id"]) for endpoint in cell.endpoints}
    wanted |= {PULL} if pulls(cell, site) else set()
    known = {item["metadata"]["name"]: item for item in _all(api, cell)}
    found = [f"Secret {name} is missing." for name in sorted(wanted - known.keys())]
    found += [f"Secret {name} is left over." for name in sorted(known.keys() - wanted)]
    if pulls(cell, site) and PULL in known and known[PULL].get("data") != _pull(cell, site)["data"]:
        found.append(f"Secret {PULL} was changed.")
    return found


def pulls(cell: PlacedCell, site: Site) -> bool:
    """Whether the cell's images come through the nodes' own proxy, which wants to know who asks."""
    return bool(site.registry and cell.pull)


def _all(api: Api, cell: PlacedCell) -> list[Object]:
    """The platform's secrets in the cell; others' are left alone."""
    return api.list("v1", "Secret", cell.location, labelSelector=_WHAT)


def _secret(cell: PlacedCell, name: str, what: str, kind: str, data: dict[str, str]) -> Object:
    encoded = {key: base64.b64encode(value.encode()).decode() for key, value in data.items()}
    labels = {
        _WHAT: what,
        "cytoplane.dev/cell": str(cell.number),
        "app.kubernetes.io/part-of": "cytoplane",
    }
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "namespace": cell.location, "labels": labels},
        "type": kind,
        "data": encoded,
    }


def _environment(cell: PlacedCell, replica: str, variables: dict[str, str]) -> Object:
    made = _secret(cell, secret_of(replica), _ENVIRONMENT, "Opaque", variables)
    return {**made, "immutable": True}


def _pull(cell: PlacedCell, site: Site) -> Object:
    pair = base64.b64encode(f"{cell.location}:{cell.pull}".encode()).decode()
    entry = {"username": cell.location, "password": cell.pull, "auth": pair}
    document = json.dumps({"auths": {site.registry: entry}}, sort_keys=True)
    return _secret(cell, PULL, _PULLING, "kubernetes.io/dockerconfigjson", {".dockerconfigjson": document})
