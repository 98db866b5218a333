"""Whether an object is still what the chart made of it, and making it so again."""

from __future__ import annotations

import copy
from typing import Any

from dataplane.drivers.kubernetes.api import KINDS, Api, Object
from dataplane.drivers.kubernetes.records import RELEASES

_NAME, _NAMESPACE = "meta.helm.sh/release-name", "meta.helm.sh/release-namespace"
#: Fields that others may write: of these kinds only what the chart states is compared.
_SHARED = {"Namespace", "ServiceAccount"}


def owned(namespace: Object, location: str, number: int) -> bool:
    """Whether a namespace was made by the cell's release."""
    metadata = namespace["metadata"]
    notes, labels = metadata.get("annotations") or {}, metadata.get("labels") or {}
    return (
        notes.get(_NAME) == location
        and notes.get(_NAMESPACE) == RELEASES
        and labels.get("cytoplane.dev/cell") == str(number)
    )


def with_ownership(document: Object, release: str) -> Object:
    """The object with what Helm adds to it, so that Helm still knows it after a repair."""
    made = copy.deepcopy(document)
    metadata = made["metadata"]
    metadata["annotations"] = {**metadata.get("annotations", {}), _NAME: release, _NAMESPACE: RELEASES}
    metadata["labels"] = {**metadata.get("labels", {}), "app.kubernetes.io/managed-by": "Helm"}
    return made


class Drift:
    """One object of the chart against what the server has of it."""

    def __init__(self, api: Api, document: Object) -> None:
        self._api = api
        self._document = document

    def _live(self) -> Object | None:
        metadata = self._document["metadata"]
        return self._api.get(
            self._document["apiVersion"],
            self._document["kind"],
            metadata.get("namespace", ""),
            metadata["name"],
        )

    def _content(self) -> dict[str, Any]:
        """What is stated besides names and labels, as the server would write it."""
        whole = self._document
        if whole["kind"] not in _SHARED and KINDS[whole["kind"]][1]:
            whole = self._api.would_be(whole)
        return {key: value for key, value in whole.items() if key not in _NOT_CONTENT}

    def _differs(self, live: Object) -> bool:
        for part in ("labels", "annotations"):
            has = live["metadata"].get(part) or {}
            if any(has.get(key) != value for key, value in self._document["metadata"][part].items()):
                return True
        return any(live.get(key) != value for key, value in self._content().items())

    def problem(self) -> str:
        """A sentence about what is wrong; empty if nothing is."""
        name = f"{self._document['kind']} {self._document['metadata']['name']}"
        live = self._live()
        if live is None:
            return f"{name} is missing."
        if live["metadata"].get("deletionTimestamp"):
            return f"{name} is being deleted."
        return f"{name} was changed." if self._differs(live) else ""

    def repair(self) -> bool:
        """Make the object what it should be; whether it wasn't, or won't stay."""
        live = self._live()
        if live is not None and not self._differs(live):
            return bool(live["metadata"].get("deletionTimestamp"))
        if live is None or self._document["kind"] in _SHARED:
            self._api.apply(self._document)
            return True
        metadata = live["metadata"]
        for part in ("labels", "annotations"):
            metadata[part] = {**(metadata.get(part) or {}), **self._document["metadata"][part]}
        self._api.replace({**live, **self._content()})
        return True


_NOT_CONTENT = {"apiVersion", "kind", "metadata", "status"}
