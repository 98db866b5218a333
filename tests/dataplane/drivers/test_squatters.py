"""What somebody put where replicas come, whatever is written on it. No cluster is asked."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from dataplane.drivers.kubernetes import strangers
from dataplane.drivers.kubernetes.api import Object
from dataplane.drivers.kubernetes.drift import with_ownership
from tests.cluster import cell
from tests.dataplane.drivers.test_pods import entry

CELL = replace(cell(), endpoints=tuple(entry(number, "sleep 1") for number in (1, 2, 3)))


#: Kind and name of what was taken away.
Gone = list[tuple[str, str]]


class Namespace:
    """The cell's objects."""

    def __init__(self, *items: Object) -> None:
        self.items, self.deleted = items, Gone()

    def list(self, version: str, kind: str, namespace: str, **selectors: str) -> list[Object]:
        return [item for item in self.items if item["kind"] == kind]

    def delete(self, version: str, kind: str, namespace: str, name: str) -> None:
        self.deleted.append((kind, name))

    def room(self) -> Gone:
        strangers.make_room(self, CELL)  # type: ignore[arg-type]
        return self.deleted


def deployment(name: str, **selector: str) -> Object:
    wanted = {"matchLabels": selector or {"cytoplane.dev/replica": name}}
    return {"kind": "Deployment", "metadata": {"name": name}, "spec": {"selector": wanted}}


def pod(name: str) -> Object:
    return {"kind": "Pod", "metadata": {"name": name}, "spec": {}}


def made(document: Object) -> Any:
    return with_ownership(document, CELL.location)


def test_what_helm_made_stays_and_what_has_none_of_its_words_goes() -> None:
    kept = [made(deployment("r1")), deployment("mine"), pod("mine"), made(pod("r3"))]
    assert Namespace(*kept, deployment("r2")).room() == [("Deployment", "r2")]


def test_helms_words_on_what_helm_cant_change_keep_nothing() -> None:
    """A selector is for ever: the upgrade would fail each time."""
    assert Namespace(made(deployment("r1", app="mine"))).room() == [("Deployment", "r1")]
