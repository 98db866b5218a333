"""Which of several controllers works: a lease in the cluster (coordination.k8s.io), told apart by versions.

Clocks of different nodes are never compared. A lease is taken over when its record hasn't changed for
its whole length by the clock of who watches; who holds it begins nothing that could last beyond it.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime

from dataplane.drivers.interface import DriverError
from dataplane.drivers.kubernetes.api import Api, Changed, Object
from dataplane.drivers.kubernetes.budget import CALL

log = logging.getLogger("cytoplane.controller")
NAME, VERSION = "plane-controller", "coordination.k8s.io/v1"
#: Seconds: how long a silent holder is believed to work; how often it renews; and how old its renewal may
#: be for a call of the driver to begin, so that it ends before anybody else begins one.
DURATION, RENEW, FRESH = CALL + 30, 5.0, 20.0


class Lease:
    """Held by ``holder``, or not. ``try_once`` is called in turn by one thread."""

    def __init__(self, opened: Callable[[], Api], namespace: str, holder: str) -> None:
        self._open, self._namespace, self.holder = opened, namespace, holder
        self._lock = threading.Lock()
        self._renewed = float("-inf")
        #: How often it was taken from somebody else, or from nobody: who held it meanwhile has changed things.
        self.term = 0
        #: Version of the record as it was last seen, and since when it is that one.
        self._seen: tuple[str, float] = ("", 0.0)

    @property
    def held(self) -> bool:
        """Whether something may begin now."""
        with self._lock:
            return time.monotonic() - self._renewed < FRESH

    def try_once(self) -> bool:
        """Take it or renew it if that can be; whether it is held. Raises ``DriverError``."""
        begun = time.monotonic()
        with self._open() as api:
            record = api.get(VERSION, "Lease", self._namespace, NAME)
            taken = self._make(api) if record is None else self._take(api, record, begun)
        with self._lock:
            if taken:
                # From before the request: nobody can have begun to wait for less time.
                self._renewed = begun
        return taken

    def _make(self, api: Api) -> bool:
        metadata = {"name": NAME, "namespace": self._namespace}
        document = {"apiVersion": VERSION, "kind": "Lease", "metadata": metadata, "spec": self._spec(0)}
        made = api.create(document)
        self.term += made
        return made

    def _take(self, api: Api, record: Object, now: float) -> bool:
        spec, version = record.get("spec") or {}, record["metadata"]["resourceVersion"]
        if version != self._seen[0]:
            self._seen = (version, now)
        holder = spec.get("holderIdentity") or ""
        if holder not in ("", self.holder) and now - self._seen[1] < DURATION:
            return False
        changes = int(spec.get("leaseTransitions") or 0) + (holder != self.holder)
        document = {"apiVersion": VERSION, "kind": "Lease", "metadata": record["metadata"]}
        try:
            api.replace({**document, "spec": self._spec(changes)})
        except Changed as error:
            # Somebody else was first: the record has another version.
            log.info("the lease isn't taken: %s", error)
            return False
        if holder != self.holder or not self.term:
            self.term += 1
            log.info("this controller works from here on (before: %s)", holder or "nobody")
        return True

    def _spec(self, changes: int) -> Object:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        return {
            "holderIdentity": self.holder,
            "leaseDurationSeconds": int(DURATION),
            "renewTime": now,
            "leaseTransitions": changes,
        }

    def release(self) -> None:
        """Let another one work at once. Call when nothing of this one goes on."""
        with self._lock:
            held, self._renewed = self._renewed > float("-inf"), float("-inf")
        if not held:
            return
        try:
            with self._open() as api:
                record = api.get(VERSION, "Lease", self._namespace, NAME)
                if record and (record.get("spec") or {}).get("holderIdentity") == self.holder:
                    spec = {**record["spec"], "holderIdentity": ""}
                    api.replace(
                        {"apiVersion": VERSION, "kind": "Lease", "metadata": record["metadata"], "spec": spec}
                    )
        except DriverError as error:
            log.warning("the lease isn't given back: %s", error)
