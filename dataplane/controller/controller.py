"""The controller's loops: hold the lease, follow desired state, make places, say how they are.

Only the holder of the lease works, and not before it has heard from its control plane what is wanted now: what
it knows of an earlier time may be what another one has replaced since. Later, without its control plane, it goes
on with the last state that it has in memory; what runs is Kubernetes' to keep running in any case.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import httpx

from dataplane import addresses, reporting
from dataplane.agent import healthfile
from dataplane.agent.state import Damaged, State, load, save
from dataplane.client import ControlPlane, NotEnrolled, Refused
from dataplane.controller import identity, nodes, rights
from dataplane.controller.credentials import credentials
from dataplane.controller.lease import RENEW, Lease
from dataplane.controller.places import Places
from dataplane.drivers.interface import CellStatus, DriverError, PlacedCell
from dataplane.drivers.kubernetes import Kubernetes
from dataplane.drivers.kubernetes.api import Api
from dataplane.drivers.kubernetes.site import Site
from infra.config import Config

log = logging.getLogger("cytoplane.controller")
#: The platform's own namespace on the cluster.
NAMESPACE = "cytoplane"
POLL_SECONDS, STEP, PLANE_SECONDS, HEALTH_SECONDS, TROUBLE = 25, 0.25, 10.0, 10.0, 15.0
_FAILURES = (httpx.HTTPError, Refused, NotEnrolled, DriverError, OSError)


class Controller:
    """``run`` returns after ``stop``."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.control = ControlPlane(config.controller_dir, config.control_plane)
        self.lease = Lease(self._api, NAMESPACE, os.environ.get("POD_NAME") or socket.gethostname())
        self.places = Places(self._driver, self._may, self._grant)
        self._state = State()
        self._state_file = config.controller_dir / "state.json"
        self._stopping, self._asking = threading.Event(), threading.Lock()
        self._troubles: dict[str, str] = {}
        self._nodes: list[str] = []
        #: Terms of the lease: of what is known of desired state, and of what was told of replicas.
        self._known = self._told = 0
        self._sent: dict[str, dict[str, Any]] = {}
        self._health_due = 0.0

    def _api(self) -> Api:
        return Api(credentials(self.config))

    def _driver(self) -> Kubernetes:
        return Kubernetes(credentials(self.config), site=self._site())

    def _grant(self, cell: PlacedCell) -> CellStatus | None:
        with self._api() as api:
            return rights.grant(api, cell, NAMESPACE)

    def _site(self) -> Site:
        resolver = addresses.workload(self.config, addresses.RESOLVER)
        return Site(
            registry=f"127.0.0.1:{self.config.registry_port}",
            resolvers=(resolver.v4, resolver.v6),
            check_image=self.config.check_image,
            networks=(str(self.config.workloads4), str(self.config.workloads6)),
            opened=tuple(map(str, self.config.opened)),
        )

    def run(self) -> None:
        """Work until ``stop`` is called; then what goes on is finished and the lease is given back."""
        try:
            self._state = load(self._state_file) or State()
        except Damaged as error:
            log.error("%s", error)
        loops: tuple[tuple[str, Callable[[], None], float], ...] = (
            ("the lease", self._hold, RENEW),
            ("joining", self._join, HEALTH_SECONDS),
            ("desired state", self._follow, 0.0),
            ("the plane", self._plane, PLANE_SECONDS),
            ("reporting", self._report, 1.0),
        )
        threads = [
            threading.Thread(target=self._loop, args=each, name=each[0], daemon=True) for each in loops
        ]
        for thread in threads:
            thread.start()
        while not self._stopping.wait(STEP):
            self.places.step()
        self.places.stop()
        self.lease.release()

    def stop(self) -> None:
        self._stopping.set()

    def _loop(self, what: str, once: Callable[[], None], pause: float) -> None:
        delay = 0.5
        while not self._stopping.is_set():
            try:
                once()
                self._troubles.pop(what, None)
                delay = 0.5
                self._stopping.wait(pause)
            except _FAILURES as error:
                if self._troubles.get(what) != str(error):
                    log.warning("%s: %s", what, error)
                self._troubles[what] = str(error)
                self._stopping.wait(delay)
                delay = min(delay * 2, TROUBLE)
            except Exception as error:  # whatever it was, the plane mustn't stand still
                log.exception("%s failed", what)
                self._troubles[what] = f"{type(error).__name__}"
                self._stopping.wait(delay)
                delay = min(delay * 2, TROUBLE)

    def _may(self) -> bool:
        """Whether something may be made: nobody else is at it, and what is wanted is known."""
        return self.lease.held and self._known == self.lease.term

    def _hold(self) -> None:
        self.lease.try_once()

    def _join(self) -> None:
        if not self.lease.held:
            return
        with self._api() as api:
            identity.join(self.control, api, NAMESPACE, {"nodes": len(nodes.names(api))})
            self.control.renew_if_due()
            identity.keep(self.control.folder, api)

    def _follow(self) -> None:
        if not (self.lease.held and self.control.enrolled):
            self._stopping.wait(0.5)
            return
        have, term = self._state, self.lease.term
        first = self._known != term
        answer = self.control.get(
            "/agent/desired",
            generation=have.generation,
            mark=have.mark,
            wait=0 if first else POLL_SECONDS,
        )
        if answer is not None:
            fresh = have.after(answer)
            save(self._state_file, fresh)
            self._state = fresh
        if first:
            self.places.forget()
        if answer is not None or first:
            # Places may be others as well: they are asked for now.
            self._ask(lambda: self.lease.term == term)
            self._known = term

    def _plane(self) -> None:
        """Places as they should be; tokens for nodes that aren't heard of."""
        if not (self.lease.held and self.control.enrolled):
            return
        with self._api() as api:
            self._nodes = nodes.names(api)
            heard = self._ask(self._may)
            problems = nodes.invite(self.control, api, NAMESPACE, self._nodes, heard)
        if problems:
            raise Refused("; ".join(problems[:3]))

    def _ask(self, may: Callable[[], bool]) -> set[str]:
        """Take the places of this moment, if they may be taken; the nodes whose agents are heard of."""
        with self._asking:  # or an earlier answer could come over a later one
            document = {"nodes": self._nodes} if self._nodes else {}
            answer = self.control.post("/controller/plane", document)
            if may():
                self.places.give(answer["places"], self._state.units)
        return set(answer["agents"])

    def _report(self) -> None:
        healthfile.write(self.config, self.health(), self.control.enrolled)
        if not (self.lease.held and self.control.enrolled):
            return
        if self._may():
            self._tell()
        # Last: who can't tell how replicas are must look silent, not healthy.
        if time.monotonic() >= self._health_due:
            self.control.post("/agent/report", {"node": self.health()})
            self._health_due = time.monotonic() + HEALTH_SECONDS

    def _tell(self) -> None:
        if self._told != self._known:
            self._sent, self._told = {}, self._known
        self._say(self.places.said())
        known = {report["id"]: report for report in self.places.replicas()}
        fresh = [report for key, report in known.items() if self._sent.get(key) != report]
        self._sent = {key: report for key, report in self._sent.items() if key in known}
        for portion in reporting.portions(fresh):
            self.control.post("/agent/report", {"replicas": portion})
            self._sent |= {report["id"]: report for report in portion}

    def _say(self, said: list[dict[str, Any]]) -> None:
        waiting = list(reporting.portions(said))
        try:
            while waiting:
                self.control.post("/controller/places", {"places": waiting[0]})
                waiting.pop(0)
        except _FAILURES:
            self.places.again([report for portion in waiting for report in portion])
            raise

    def health(self) -> dict[str, Any]:
        """The controller's own view of itself."""
        problems = [f"{what}: {trouble}" for what, trouble in sorted(self._troubles.items())]
        problems += self.places.problems()
        return {
            "healthy": not problems,
            "problems": problems,
            "generation": self._state.generation,
            "nodes": len(self._nodes),
            "facts": {"nodes": len(self._nodes)},
        }
