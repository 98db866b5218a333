"""What somebody put where replicas come, whatever is written on it. No cluster is asked."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from dataplane.drivers.kubernetes import once, strangers
from dataplane.drivers.kubernetes.api import Object
from dataplane.drivers.kubernetes.drift import with_ownership
from tests.cluster import cell
from tests.dataplane.drivers.test_pods import entry

_RUN = entry(3, "true")
_RUN["process"] |= {"restart": "never", "timeout": 60}
CELL = replace(cell(), endpoints=(entry(1, "sleep 1"), entry(2, "sleep 1"), _RUN))


class Namespace:
    """The cell's objects; runs whose pod may have been made."""

    def __init__(self, *items: Object, begun: tuple[str, ...] = ()) -> None:
        self.items, self.begun = items, begun
        self.deleted: list[tuple[str, str]] = []

    def list(self, version: str, kind: str, namespace: str, **selectors: str) -> list[Object]:
        if kind == "Secret":
            assert selectors == {"labelSelector": once.BEGUN}
            return [{"metadata": {"name": f"env-{replica}"}} for replica in self.begun]
        return [item for item in self.items if item["kind"] == kind]

    def delete(self, version: str, kind: str, namespace: str, name: str) -> None:
        self.deleted.append((kind, name))

    def room(self) -> list[tuple[str, str]]:
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
    assert Namespace(*kept, deployment("r2"), begun=("r3",)).room() == [("Deployment", "r2")]


def test_helms_words_on_what_helm_cant_change_keep_nothing() -> None:
    """A selector and what a pod runs are for ever: the upgrade would fail each time."""
    forged = [made(deployment("r1", app="mine")), made(pod("r3"))]
    assert Namespace(*forged).room() == [("Deployment", "r1"), ("Pod", "r3")]
