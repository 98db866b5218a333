"""One replica's life: namespace, container, health, restarts, end. A thread each, in small steps.

Every step looks at what is there before it does anything, so that an agent that was killed anywhere
goes on from there; a container that runs already is only watched.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from dataplane.agent import container, images, logs, network, probes
from dataplane.agent.kernel import Kernel
from dataplane.agent.podman import Podman, PodmanError
from dataplane.client import ControlPlane
from infra.config import Config

log = logging.getLogger("cytoplane.agent")
FIRST_BACKOFF, LONGEST_BACKOFF = 1.0, 60.0
#: A process that ran this long starts over with a short back-off.
STABLE = 60.0
UNHEALTHY_AFTER = 3
#: Seconds without one passing check after which nobody's connection is kept any more.
GIVEN_UP_AFTER = 30.0
#: Seconds that the kernel gets to deliver what an ended process wrote.
DELIVERY = 3.0
#: Seconds that podman may take to learn how a process ended.
SETTLE = 5.0
#: Exit code of a process that SIGKILL ended.
_KILLED = 137


@dataclass
class Status:
    """What is reported. ``phase`` "" means that nothing is known yet, as after the agent's restart."""

    phase: str = ""
    restarts: int = 0
    exit_code: int | None = None
    reason: str = ""
    probe: dict[str, str] | None = None
    last_lines: list[str] = field(default_factory=list)
    started_at: float | None = None


class ReplicaWorker:
    """Keeps one replica as desired until ``stop``."""

    def __init__(
        self,
        config: Config,
        control: ControlPlane,
        kernel: Kernel,
        endpoint: dict[str, Any],
        changed: Callable[[], None],
    ) -> None:
        self.config, self.control, self.kernel = config, control, kernel
        self.endpoint = endpoint
        self.id: str = endpoint["id"]
        self.status = Status()
        #: Its first process, as far as it was seen; 0: none.
        self.pid = 0
        self._changed = changed
        self._stopping = threading.Event()
        self._podman = Podman(config)
        self._backoff = FIRST_BACKOFF
        self._was_healthy = False
        self._failures = 0
        self._unwell_since: float | None = None
        self._given_up = False
        self.thread = threading.Thread(target=self._run, name=self.id, daemon=True)

    def start(self) -> None:
        self.thread.start()

    def stop(self) -> None:
        """Ask for the end: SIGTERM, grace, SIGKILL, then the namespace. Doesn't wait."""
        self._stopping.set()

    # The thread.
    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._step()
            except (PodmanError, images.ImageError, network.NetworkError, OSError) as error:
                log.warning("%s: %s", self.id, error)
                self._set("starting" if self._was_healthy else "failed", reason=str(error)[:300])
                self._wait_backoff()
            except Exception:
                log.exception("%s failed", self.id)
                self._wait_backoff()
        self._end()

    def _step(self) -> None:
        """Bring the replica up and watch it until it ends or has to."""
        self._ensure_network()
        name = container.name_of(self.config, self.id)
        found = self._podman.inspect(name)
        if found is None:
            if not self.status.phase:
                self._set("starting")
            image = images.ensure(self.config, self.control, self._podman, self.endpoint["process"]["image"])
            container.write_hosts(self.config, self.endpoint)
            self._podman.create(container.specification(self.config, self.endpoint, image))
            found = {"State": {"Status": "created", "Running": False}}
        if not found["State"]["Running"]:
            if self.kernel.distrust:
                self._set("starting", reason=f"the node can't isolate it yet: {self.kernel.distrust}"[:300])
                self._stopping.wait(1.0)
                return
            if found["State"].get("Status") not in ("created", "configured"):
                self._restarting()
            container.open_output(self._podman.init(name))
            self._podman.start(name)
            self.status.started_at = time.time()
        self._watch(name)

    def _restarting(self) -> None:
        self.status.restarts += 1
        if self._was_healthy or not self.status.phase:
            self._set("starting")

    def _watch(self, name: str) -> None:
        """Until the container ends or the replica is to stop."""
        probe = self.endpoint["process"]["probe"]
        begun = time.monotonic()
        next_probe = 0.0
        while not self._stopping.is_set():
            state = (self._podman.inspect(name) or {"State": {"Running": False}})["State"]
            self.pid = int(state.get("Pid") or 0)
            if not state["Running"]:
                self._ended(self._settled(name, state), begun)
                return
            if time.monotonic() >= next_probe:
                healthy = self._probe(probe, begun)
                next_probe = time.monotonic() + (
                    probe["interval"] if healthy else min(0.15, probe["interval"])
                )
            self._stopping.wait(0.1 if self.status.phase != "healthy" else 1.0)

    def _settled(self, name: str, state: dict[str, Any]) -> dict[str, Any]:
        """The state once podman knows the exit code: a moment after the process it still says 0."""
        end = time.monotonic() + SETTLE
        while state.get("Status") not in (None, "exited") and time.monotonic() < end:
            if self._stopping.wait(0.05):
                break
            state = (self._podman.inspect(name) or {"State": {}})["State"]
        return state

    def _probe(self, probe: dict[str, Any], begun: float) -> bool:
        address = self.endpoint["v4"]
        try:
            # Without a check of its own, a process must at least stay for a moment.
            if probe["type"] == "none" and time.monotonic() - begun < 1.0:
                return False
            probes.check(network.path_of(self.config, self.id), address, probe)
        except probes.ProbeFailed as failure:
            self._failures += 1
            answer = {"what": failure.what, "answer": failure.answer}
            if self._was_healthy and self._failures >= UNHEALTHY_AFTER:
                self._set("unhealthy", probe=answer)
                self._unwell()
            elif not self._was_healthy and time.monotonic() - begun > probe["grace"]:
                lines = logs.last_lines(container.log_path(self.config, self.id))
                self._set("failed", probe=answer, last_lines=lines)
            elif not self._was_healthy and self.status.phase != "failed":
                self._set("starting")
            return False
        self._failures, self._was_healthy = 0, True
        self._unwell_since, self._given_up = None, False
        if time.monotonic() - begun > STABLE:
            self._backoff = FIRST_BACKOFF
        self._set("healthy")
        return True

    def _unwell(self) -> None:
        """A process that lives and doesn't answer keeps its connections for a while, not for ever."""
        now = time.monotonic()
        self._unwell_since = self._unwell_since or now
        if not self._given_up and now - self._unwell_since >= GIVEN_UP_AFTER:
            self._given_up = True
            self._left(stuck=True)

    def _left(self, *, stuck: bool = False) -> None:
        """Nobody is left waiting for an answer that won't come."""
        pair = (self.endpoint["v4"], self.endpoint["v6"])
        self.kernel.backend_left(self.id, self.endpoint["identity"], pair, stuck=stuck)
        self._changed()

    def _ended(self, state: dict[str, Any], begun: float) -> None:
        if self._stopping.is_set():
            return
        code = state.get("ExitCode")
        reason = "it ran out of memory" if state.get("OOMKilled") else ""
        if code == _KILLED and not reason:
            # podman doesn't hear of the kernel's choice everywhere.
            reason = "it was killed, as the kernel does when memory runs out"
        # The log's writer may be a moment behind the process.
        time.sleep(0.05)
        lines = logs.last_lines(container.log_path(self.config, self.id))
        phase = "unhealthy" if self._was_healthy else "failed"
        self._set(phase, exit_code=code, reason=reason, last_lines=lines)
        self._left()
        if time.monotonic() - begun > STABLE:
            self._backoff = FIRST_BACKOFF
        self._wait_backoff()

    def _wait_backoff(self) -> None:
        self._stopping.wait(self._backoff)
        self._backoff = min(self._backoff * 2, LONGEST_BACKOFF)

    def _set(self, phase: str, **detail: Any) -> None:
        before = (self.status.phase, self.status.exit_code, self.status.probe, self.status.reason)
        status = self.status
        status.phase = phase
        status.exit_code = detail.get("exit_code")
        status.reason = detail.get("reason", "")
        status.probe = detail.get("probe")
        status.last_lines = detail.get("last_lines", [])
        if before != (status.phase, status.exit_code, status.probe, status.reason):
            self._changed()

    # Network.
    def _ensure_network(self) -> None:
        """The namespace as it must be before the process may start."""
        self.kernel.ensure_endpoint(self.endpoint)

    def _end(self) -> None:
        """Process, container, namespace, tables, log: in this order."""
        name = container.name_of(self.config, self.id)
        for attempt in range(5):
            try:
                self._podman.stop(name, int(self.endpoint["process"]["stop_grace"]))
                self._podman.remove(name)
                break
            except PodmanError as error:
                log.warning("%s can't be removed: %s", self.id, error)
                time.sleep(attempt + 1)
        self._deliver()
        self.kernel.remove_namespace(self.id, self.endpoint["number"])
        self._left()
        container.log_path(self.config, self.id).unlink(missing_ok=True)
        container.hosts_path(self.config, self.id).unlink(missing_ok=True)
        self._set("stopped")

    def _deliver(self) -> None:
        """Let clients have the last of what they were sent: it would go with the namespace."""
        end = time.monotonic() + DELIVERY
        while time.monotonic() < end and self.kernel.connections.delivering(self.id):
            time.sleep(0.05)

    def report(self) -> dict[str, Any]:
        """What the control plane is told."""
        status = self.status
        document: dict[str, Any] = {"id": self.id, "phase": status.phase, "restarts": status.restarts}
        if status.exit_code is not None:
            document["exit_code"] = status.exit_code
        if status.reason:
            document["reason"] = status.reason
        if status.probe:
            document["probe"] = status.probe
        if status.last_lines:
            document["last_lines"] = status.last_lines
        if status.started_at:
            document["started_at"] = status.started_at
        return document
