"""Cells as namespaces: Helm makes and upgrades them, the API is asked what is really there.

Every step can be the last one before a kill, so each call begins with a look and goes on from what it
finds. An operation of Helm's that ended in the middle leaves a record that says `pending`; the record
goes and the next installation takes over what was made, which carries the release's name. Nothing
that was running in the namespace is deleted for that.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dataplane.drivers.interface import CellState, CellStatus, DriverError, PlacedCell, Rejected, Taken
from dataplane.drivers.kubernetes import leaving, once, secrets, statuses, strangers
from dataplane.drivers.kubernetes.api import Api, Object
from dataplane.drivers.kubernetes.budget import Budget
from dataplane.drivers.kubernetes.drift import Drift, owned, with_ownership
from dataplane.drivers.kubernetes.helm import Helm
from dataplane.drivers.kubernetes.kubeconfig import Kubeconfig
from dataplane.drivers.kubernetes.records import RELEASES, UNFINISHED, Record, forget, newest
from dataplane.drivers.kubernetes.site import Site
from dataplane.drivers.kubernetes.workloads import workload

CHART = Path(__file__).resolve().parents[3] / "infra" / "charts" / "cell"
#: What a container gets that states nothing: thousandths of a core, MiB.
_DEFAULT_CPU, _DEFAULT_MEMORY = 500, 256
_NOWHERE = Site()
#: What only an operator opens. The kernel's floor is finer; this is the second layer.
_PRIVATE4 = ("10.0.0.0/8", "100.64.0.0/10", "169.254.0.0/16", "172.16.0.0/12", "192.168.0.0/16")
_PRIVATE6 = ("fc00::/7", "fe80::/10")


class Kubernetes:
    """The driver of one cluster. All methods raise ``DriverError``."""

    def __init__(self, kubeconfig: Kubeconfig, chart: Path = CHART, site: Site = _NOWHERE) -> None:
        self._kubeconfig = kubeconfig
        self._chart = chart
        self._site = site

    @contextmanager
    def _open(self) -> Iterator[tuple[Api, Helm]]:
        """Both ways to the cluster for one call, which share its time."""
        budget = Budget()
        with Api(self._kubeconfig, budget) as api:
            yield api, Helm(self._kubeconfig, self._chart, budget)

    def check(self) -> str:
        """The cluster's version; raises unless it answers and takes the credentials."""
        with self._open() as (api, _):
            return api.check()

    def ensure(self, cell: PlacedCell) -> CellStatus:
        with self._open() as (api, helm):
            namespace = _namespace(api, cell)
            if namespace is not None and _going(namespace):
                # Deleted by hand, perhaps: it comes back when it has gone.
                if leaving.stuck(namespace):
                    leaving.free(api, cell.location)
                return CellStatus(CellState.REMOVING)
            once.settle(api, cell)
            record, place = newest(api, cell.location), once.without_gone(api, cell)
            wanted = values(place, self._site)
            if record is not None and record.status in UNFINISHED:
                api.delete("v1", "Secret", RELEASES, record.secret)
                record = newest(api, cell.location)
            there = namespace is not None
            if not there and cell.endpoints:
                # What runs needs its secrets, and those the namespace.
                helm.install(cell.location, {**wanted, "workloads": []})
                record, there = newest(api, cell.location), True
            if there:
                secrets.keep(api, cell, self._site)
            if record is None or not record.made_from(self._chart, wanted):
                strangers.make_room(api, cell)
                with once.beginning(api, place):
                    helm.install(cell.location, wanted)
                record = newest(api, cell.location)
            documents = _documents(record)
            repaired = [Drift(api, document).repair() for document in _lasting(documents)]
            if not there:
                secrets.keep(api, cell, self._site)
            extra = strangers.found(api, cell, documents)
            for stranger in extra:
                api.delete(
                    stranger["apiVersion"], stranger["kind"], cell.location, stranger["metadata"]["name"]
                )
            secrets.sweep(api, cell, self._site)
            if record is not None and record.made_from(self._chart, wanted) and not (any(repaired) or extra):
                # Each object has just been compared with what it should be.
                return CellStatus(CellState.READY, record.revision)
            return self._seen(api, cell)

    def reports(self, cell: PlacedCell, before: dict[str, str]) -> list[dict[str, Any]]:
        with self._open() as (api, _):
            return statuses.reports(api, cell, before)

    def status(self, cell: PlacedCell) -> CellStatus:
        with self._open() as (api, _):
            return self._seen(api, cell)

    def _seen(self, api: Api, cell: PlacedCell) -> CellStatus:
        namespace = _namespace(api, cell)
        if namespace is not None and _going(namespace):
            return CellStatus(CellState.REMOVING)
        record = newest(api, cell.location)
        if record is None:
            if namespace is None:
                return CellStatus(CellState.ABSENT)
            return CellStatus(CellState.INTERRUPTED, 0, ("The namespace is there without its Helm release.",))
        number = record.revision
        if record.status in UNFINISHED or record.status == "failed":
            problem = f"Helm's last operation ended in the middle ({record.status})."
            return CellStatus(CellState.INTERRUPTED, number, (problem,))
        problems = []
        if not record.made_from(self._chart, values(once.without_gone(api, cell), self._site)):
            problems.append("It was installed from another chart or with other values.")
        if namespace is None:
            return CellStatus(CellState.DRIFTED, number, (*problems, "The namespace is missing."))
        documents = _documents(record)
        problems += [
            problem for document in _lasting(documents) if (problem := Drift(api, document).problem())
        ]
        for stranger in strangers.found(api, cell, documents):
            problems.append(f"{stranger['kind']} {stranger['metadata']['name']} isn't the platform's.")
        problems += secrets.problems(api, cell, self._site)
        return CellStatus(CellState.DRIFTED if problems else CellState.READY, number, tuple(problems))

    def remove(self, cell: PlacedCell) -> CellStatus:
        with self._open() as (api, helm):
            try:
                namespace = _namespace(api, cell)
            except Taken:
                # Whatever it is, it isn't the cell: nothing of ours was ever made there.
                if newest(api, cell.location) is None:
                    return CellStatus(CellState.ABSENT)
                raise
            if namespace is not None and not _going(namespace) and newest(api, cell.location) is not None:
                helm.uninstall(cell.location)
                namespace = _namespace(api, cell)
            if namespace is not None and not _going(namespace):
                api.delete("v1", "Namespace", "", cell.location)
                namespace = _namespace(api, cell)
            if namespace is None:
                # Of an uninstallation that was killed, or of a namespace that somebody else deleted. Helm would
                # begin with what was in there, where a plane's controller has no rights any more.
                forget(api, cell.location)
                return CellStatus(CellState.ABSENT)
            if leaving.stuck(namespace):
                leaving.free(api, cell.location)
            return CellStatus(CellState.REMOVING)


def values(cell: PlacedCell, site: Site = _NOWHERE) -> dict[str, Any]:
    """The chart's values: nothing secret, since Helm keeps them. One container may have what the plan allows, half of what a deployment may."""
    largest_cpu, largest_memory = max(1, cell.quota.cpu // 2), max(1, cell.quota.memory // 2)
    return {
        "namespace": cell.location,
        "cell": {
            "number": cell.number,
            "tenant": cell.tenant,
            "project": cell.project,
            "environment": cell.environment,
        },
        "quota": {"pods": cell.quota.replicas, "cpu": cell.quota.cpu, "memory": cell.quota.memory},
        "limits": {
            "cpu": min(_DEFAULT_CPU, largest_cpu),
            "memory": min(_DEFAULT_MEMORY, largest_memory),
            "largest": {"cpu": largest_cpu, "memory": largest_memory},
        },
        "workloads": [workload(endpoint, site) for endpoint in cell.endpoints],
        "dns": {"servers": list(site.resolvers)},
        "pull": secrets.pulls(cell, site),
        "check": {"image": site.check_image, "arguments": list(site.check_arguments)},
        "priorityClass": site.priority_class,
        "userNamespaces": site.user_namespaces,
        "reach": {"platform": list(site.networks), "outside": _outside(site)},
    }


def _outside(site: Site) -> list[dict[str, Any]]:
    """The world without private networks, but with those that the operator opened."""
    if not site.networks:
        return []
    world: list[dict[str, Any]] = [{"cidr": "0.0.0.0/0", "except": list(_PRIVATE4)}]
    world.append({"cidr": "::/0", "except": list(_PRIVATE6)})
    return world + [{"cidr": network} for network in site.opened]


def _namespace(api: Api, cell: PlacedCell) -> Object | None:
    """The cell's namespace; None if there is none. Raises ``Taken`` if it is somebody else's."""
    found = api.get("v1", "Namespace", "", cell.location)
    if found is not None and not owned(found, cell.location, cell.number):
        raise Taken(f"The namespace {cell.location} exists and isn't the cell's.")
    return found


def _going(namespace: Object) -> bool:
    return bool(namespace["metadata"].get("deletionTimestamp"))


def _lasting(documents: list[Object]) -> list[Object]:
    """What is made again where it is missing: all but runs."""
    return [item for item in documents if item["kind"] != "Pod"]


def _documents(record: Record | None) -> list[Object]:
    """What the release holds, the namespace first, as Helm would have made it."""
    if record is None:
        raise Rejected("Helm has left no record of the cell.")
    return [with_ownership(item, record.release) for item in record.documents()]


__all__ = ["CHART", "DriverError", "Kubernetes", "values"]
