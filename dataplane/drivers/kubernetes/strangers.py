"""What mustn't be in a cell's namespace beside what the chart holds."""

from __future__ import annotations

from dataplane.drivers.interface import Denied, PlacedCell
from dataplane.drivers.kubernetes.api import Api, Object
from dataplane.drivers.kubernetes.statuses import LABEL

#: What Helm writes on everything that it made.
_MADE_BY = "meta.helm.sh/release-name"
#: kind → versions in which it is looked for where the chart has none of it.
_OURS: dict[str, list[str]] = {"Deployment": ["apps/v1"], "PodDisruptionBudget": [], "Pod": ["v1"]}
#: Whoever's: policies add up, so any of them could open what is denied; services and ingresses take
#: addresses and hosts that are others'. The quota has none of these, but a cluster counts only some seconds
#: after it was told to.
_NOBODYS = {
    "NetworkPolicy": "networking.k8s.io/v1",
    "Service": "v1",
    "Ingress": "networking.k8s.io/v1",
}


def found(api: Api, cell: PlacedCell, documents: list[Object]) -> list[Object]:
    """What has to go: what is nobody's to have, and what an upgrade made that was killed before it was
    recorded, which nobody else would ever take away.
    """
    strangers = []
    for kind, versions in _OURS.items():
        ours = [item for item in documents if item["kind"] == kind]
        names = {item["metadata"]["name"] for item in ours}
        for version in sorted({item["apiVersion"] for item in ours}) or versions:
            for item in api.list(version, kind, cell.location):
                if item["metadata"]["name"] not in names and _made(item, cell):
                    strangers.append({"apiVersion": version, "kind": kind, **item})
    for kind, version in _NOBODYS.items():
        names = {item["metadata"]["name"] for item in documents if item["kind"] == kind}
        try:
            items = api.list(version, kind, cell.location)
        except Denied:
            # A plane's own controller has no rights in what it never makes. The cluster is the tenant's.
            if names:
                raise
            continue
        strangers += [
            {"apiVersion": version, "kind": kind, **item}
            for item in items
            if item["metadata"]["name"] not in names
        ]
    return strangers


def make_room(api: Api, cell: PlacedCell) -> None:
    """Take away what somebody put where a replica comes: Helm wouldn't touch it, or can't make it what it must be
    though Helm's name is written on it, and the cell would stand."""
    names = {endpoint["id"] for endpoint in cell.endpoints}
    for version, kind in (("apps/v1", "Deployment"), ("v1", "Pod")) if names else ():
        for item in api.list(version, kind, cell.location):
            name = item["metadata"]["name"]
            ours = _made(item, cell) and (kind != "Deployment" or _selects(item, name))
            if name in names and not ours:
                api.delete(version, kind, cell.location, name)


def _selects(deployment: Object, replica: str) -> bool:
    """Whether it is a replica's by what can't be changed of it."""
    return deployment["spec"]["selector"] == {"matchLabels": {LABEL: replica}}


def _made(item: Object, cell: PlacedCell) -> bool:
    """Whether Helm made it for the cell."""
    return (item["metadata"].get("annotations") or {}).get(_MADE_BY) == cell.location
