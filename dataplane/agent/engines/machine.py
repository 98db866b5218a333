"""A machine: the agent owns networking, podman owns processes. A thread for each replica."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from typing import Any

from dataplane.agent import container, groups, images, network, once, podman
from dataplane.agent.commands import CantEnter, Command, Process, entering
from dataplane.agent.commands import machine as containers
from dataplane.agent.following import Rules
from dataplane.agent.kernel import Kernel
from dataplane.agent.load import Measured
from dataplane.agent.logs import Tail
from dataplane.agent.replica import ReplicaWorker
from dataplane.client import ControlPlane
from infra.config import Config

log = logging.getLogger("cytoplane.agent")


class Machine:
    """``worker`` is what looks after a replica."""

    worker = ReplicaWorker

    def __init__(self, config: Config, control: ControlPlane, changed: Callable[[], None]) -> None:
        self.config, self.control = config, control
        self.workers: dict[str, ReplicaWorker] = {}
        self._changed = changed
        self._kernel: Kernel | None = None

    @property
    def kernel(self) -> Kernel:
        assert self._kernel is not None
        return self._kernel

    def prepare(self) -> None:
        podman.write_settings(self.config)
        container.write_shared_files(self.config)

    def begin(self, kernel: Kernel) -> None:
        self._kernel = kernel

    def adapted(self, document: Mapping[str, Any]) -> Mapping[str, Any]:
        """As it is: replicas have the addresses that the control plane allocated."""
        return document

    def rules(self, rules: Rules | None) -> Rules | None:
        """As they are."""
        return rules

    def take_over(self, document: Mapping[str, Any]) -> list[dict[str, Any]]:
        return document["endpoints"]

    def start(self, document: Mapping[str, Any]) -> None:
        for endpoint in document["endpoints"]:
            key = endpoint["id"]
            worker = self.workers.get(key)
            if worker is None:
                ends = endpoint["process"].get("restart") == "never"
                kind = once.RunWorker if ends else self.worker
                worker = kind(self.config, self.control, self.kernel, endpoint, self._changed)
                self.workers[key] = worker
                worker.start()
            else:
                worker.endpoint = endpoint

    def published(self, document: Mapping[str, Any]) -> None:
        """Nothing waits for it here."""

    def end(self, document: Mapping[str, Any]) -> list[str]:
        wanted = {endpoint["id"] for endpoint in document["endpoints"]}
        gone = [known for known in self.workers if known not in wanted]
        for key in gone:
            self.workers.pop(key).stop()
        self._remove_strangers(wanted)
        return gone

    def _remove_strangers(self, wanted: set[str]) -> None:
        """Containers and namespaces that no snapshot knows, as after a crash."""
        ours = {worker.id for worker in self.workers.values()} | wanted
        ending = {thread.name for thread in threading.enumerate()}
        try:
            client = podman.Podman(self.config)
            for found in client.listing(f"{container.LABEL}={self.config.net}"):
                name = found.get("Labels", {}).get("cytoplane.endpoint", "")
                if name not in ours and name not in ending:
                    client.remove(found["Id"])
        except podman.PodmanError as error:
            log.warning("containers can't be listed: %s", error)
        for name in self.kernel.namespaces():
            if name[:1] == "r" and name[1:].isdigit() and name not in ours and name not in ending:
                network.destroy(self.config, name, _number_of(self.config, name))

    def down(self) -> set[str]:
        """Replicas that are known to be down."""
        phases = ("unhealthy", "failed", "stopped")
        return {key for key, worker in self.workers.items() if worker.status.phase in phases}

    def running(self) -> list[str]:
        return list(self.workers)

    def tail(self, replica: str, place: tuple[int, int]) -> Tail | None:
        return Tail(replica, container.log_path(self.config, replica), place)

    def measured(self) -> dict[str, Measured]:
        return {
            key: Measured(frozenset(what), worker.endpoint["v4"], groups.of_process(worker.pid))
            for key, worker in list(self.workers.items())
            if worker.pid and (what := worker.endpoint.get("measure"))
        }

    def reports(self) -> list[dict[str, Any]]:
        found = [worker.report() for worker in list(self.workers.values())]
        return [report for report in found if report["phase"]]

    def problems(self) -> list[str]:
        return [] if podman.Podman(self.config).alive() else ["podman doesn't answer"]

    def noted(self, health: dict[str, Any]) -> None:
        """The control plane is told; nobody else asks here."""

    def enter(self, command: Command) -> Process:
        worker = self.workers.get(command.replica)
        if worker is None:
            raise CantEnter("The replica isn't on this node any more.")
        return entering.Entered(self.config, containers.find(self.config, command.replica), command)

    def clear(self) -> None:
        entering.clear(self.config)

    def tidy(self, document: Mapping[str, Any]) -> None:
        """Take away images that nothing runs any more, and notes of runs that nobody asks about."""
        # What still ends here needs its note, lest it be begun anew.
        once.forget(self.config, [*self.workers, *(endpoint["id"] for endpoint in document["endpoints"])])
        wanted = {endpoint["process"]["image"] for endpoint in document["endpoints"]}
        try:
            images.prune(podman.Podman(self.config), wanted)
        except (podman.PodmanError, images.ImageError) as error:
            log.warning("images can't be tidied: %s", error)


def _number_of(config: Config, name: str) -> int:
    """The interface number of a namespace that nobody knows, by its veth's peer; -1 if there is none."""
    try:
        link = network._links(f"{config.name}-{name}")["eth0"]
        peers = {entry["ifindex"]: entry["ifname"] for entry in network._links().values()}
        outside = peers.get(link.get("link_index", -1), "")
        return int(outside.removeprefix(f"{config.name}v"))
    except (KeyError, ValueError, network.NetworkError):
        return -1
