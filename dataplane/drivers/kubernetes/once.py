"""Runs: pods that are made at most once.

Helm and repair would make anew what is missing. So the secret of a run, which is there before its pod, is
marked before the pod is made; what is marked and has no pod is left out from then on. Whoever looks meanwhile
sees by the mark that the pod may still come: only once nobody is making it, a run without a pod is lost.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from dataplane.drivers.interface import DriverError, PlacedCell
from dataplane.drivers.kubernetes.api import Api, Object
from dataplane.drivers.kubernetes.workloads import once, secret_of

#: On the secret of a run whose pod may have been made: somebody is at it, or nobody is any more.
BEGUN = "cytoplane.dev/begun"
_MAKING, _MADE = "making", "made"
#: On pods of runs: the component.
RUN_OF = "cytoplane.dev/run-of"


def ids(cell: PlacedCell) -> set[str]:
    """Replicas of the cell that are runs."""
    return {endpoint["id"] for endpoint in cell.endpoints if once(endpoint)}


def begun(api: Api, cell: PlacedCell) -> set[str]:
    """Runs whose pod may have been made."""
    return _marked(api, cell, BEGUN)


def made(api: Api, cell: PlacedCell) -> set[str]:
    """Of these, those whose pod nobody is making any more."""
    return _marked(api, cell, f"{BEGUN}={_MADE}")


def _marked(api: Api, cell: PlacedCell, selector: str) -> set[str]:
    marked = {
        item["metadata"]["name"] for item in api.list("v1", "Secret", cell.location, labelSelector=selector)
    }
    return {replica for replica in ids(cell) if secret_of(replica) in marked}


def settle(api: Api, cell: PlacedCell) -> None:
    """Nobody is making any pod: who was, was killed at it. Call as the only one at work on the cell."""
    for replica in _marked(api, cell, f"{BEGUN}={_MAKING}") if ids(cell) else ():
        _mark(api, cell, replica, _MADE)


def there(api: Api, cell: PlacedCell) -> set[str]:
    """Runs that have a pod."""
    found = api.list("v1", "Pod", cell.location, labelSelector=RUN_OF)
    return ids(cell) & {item["metadata"]["name"] for item in found}


def without_gone(api: Api, cell: PlacedCell) -> PlacedCell:
    """The cell without runs whose pod was made and is gone: it mustn't be made again."""
    if not ids(cell):
        return cell
    # In this order: a pod that is made in between is seen.
    gone = begun(api, cell)
    gone -= there(api, cell) if gone else set()
    if not gone:
        return cell
    return replace(cell, endpoints=tuple(e for e in cell.endpoints if e["id"] not in gone))


@contextmanager
def beginning(api: Api, cell: PlacedCell) -> Iterator[None]:
    """While pods of runs may be made; what surely wasn't may be tried again."""
    fresh = ids(cell)
    fresh -= begun(api, cell) if fresh else set()
    for replica in fresh:
        _mark(api, cell, replica, _MAKING)
    try:
        yield
        for replica in fresh:
            _mark(api, cell, replica, _MADE)
    except DriverError:
        for replica in fresh - there(api, cell) if fresh else ():
            _mark(api, cell, replica, None)
        raise


def _mark(api: Api, cell: PlacedCell, replica: str, value: str | None) -> None:
    fields: Object = {"metadata": {"labels": {BEGUN: value}}}
    api.merge("v1", "Secret", cell.location, secret_of(replica), fields)
