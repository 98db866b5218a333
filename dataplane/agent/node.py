"""The agent: brings a node to its desired state and reports what is.

Three loops: one asks for desired state, one applies what changed, one reports. None of them is
needed for what already runs to go on running, isolated.
"""

from __future__ import annotations

import logging
import os
import platform
import threading
import time
from collections.abc import Mapping
from typing import Any

import httpx

from dataplane import addresses, check, reporting
from dataplane.agent import (
    edge,
    engines,
    following,
    healthfile,
    kernel,
    memory,
    network,
    parts,
    programs,
    state,
    unready,
)
from dataplane.agent.commands.following import Sessions
from dataplane.agent.load import Meter
from dataplane.agent.logs import Tail, load_places, save_places
from dataplane.agent.names import Names
from dataplane.agent.outbox import Outbox
from dataplane.agent.pods import joining
from dataplane.agent.watch import Watch
from dataplane.agent.withheld import Withheld
from dataplane.client import NotEnrolled, Refused
from dataplane.gateway.files import Gateway
from dataplane.gateway.identity import Identity
from infra.config import Config

log = logging.getLogger("cytoplane.agent")
POLL_SECONDS = 25
REPORT_SECONDS = 2.0
HEALTH_SECONDS = 10.0
TIDY_SECONDS = 3600.0
ENVOY_SECONDS = 5.0
#: Of lines and flows in one round of reports.
BATCHES = 8
#: Changed identities from which on it is worth while to look for memory that isn't needed any more.
MANY = 100
#: Kernels talk to their neighbours unasked; nobody needs to know that it was refused.
_HOUSEKEEPING = frozenset({"NEIGHBOUR"})


class GatewayBehind(RuntimeError):
    """Envoy doesn't route as desired state says, yet; the message names what it lacks."""


class Agent:
    """A node's agent. ``run`` never returns."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.control = joining.control_plane(config)
        self.gateway = Gateway(config)
        self._meter = Meter(lambda: self.gateway.admin("GET", "/clusters"))
        self._gateways = Identity(config, self.control)
        self.edge = edge.Guard(config)
        self.engine = engines.make(config, self.control, self._phase_changed, self._again)
        self.snapshot: Mapping[str, Any] | None = None
        self.problems: list[str] = []
        #: Why earlier kernel programs go on in place of this version's; "" if they don't.
        self._refused = ""
        self._kernel: kernel.Kernel | None = None
        self._watch: Watch | None = None
        self._changed = threading.Event()
        self._report = threading.Event()
        self._lock = threading.RLock()
        self._pending: Mapping[str, Any] | None = None
        #: The document that was applied last, and what the engine made of it.
        self._here: tuple[Any, Mapping[str, Any]] = (None, {})
        self._applied = 0
        self._tails: dict[str, Tail] = {}
        self._outbox = Outbox()
        self._withheld = Withheld()
        self._sent: dict[str, dict[str, Any]] = {}
        self._names: Names | None = None
        self._state_file = config.agent_dir / "state.json"
        self._state = state.State()
        #: Generation that isn't applied yet → the rules that it changed; None if it may be all of them.
        self._reached: dict[int, following.Rules | None] = {}
        #: How far the logs are delivered, and what was kept of it by the agent before.
        self._places_file = config.agent_dir / "logs.json"
        self._places = load_places(self._places_file)
        self._saved: dict[str, tuple[int, int]] = {}

    @property
    def kernel(self) -> kernel.Kernel:
        assert self._kernel is not None
        return self._kernel

    def run(self) -> None:
        """Bring up the kernel side, take up what was, then follow the control plane."""
        unready.bring_up(self.prepare, self.control, self.config.node, facts())
        self._restore()
        assert self._watch is not None
        self._watch.start()
        threading.Thread(target=self._follow, name="follow", daemon=True).start()
        threading.Thread(target=self._apply_loop, name="apply", daemon=True).start()
        sessions = Sessions(self.control, self.engine.enter, self.engine.clear)
        threading.Thread(target=sessions.follow, name="sessions", daemon=True).start()
        self._report_loop()

    def prepare(self) -> None:
        """Kernel programs, host settings, platform namespaces, files that siblings wait for."""
        self.engine.prepare()
        self._refused = programs.load(self.config)
        network.ensure_host(self.config)
        self._kernel = kernel.Kernel(self.config)
        # The gateway starts as soon as its namespace is there, so its files come first.
        self.gateway.start_files()
        self.kernel.ensure_platform()
        self.edge.refresh()
        self._names = Names(self.config, self.kernel)
        self._watch = Watch(self.config, self.kernel, self._report.set)
        self._watch.check()
        self.engine.begin(self.kernel)
        log.info("kernel side and platform namespaces are up")

    def _restore(self) -> None:
        """Take up the last state. A damaged file changes nothing that runs: the kernel's tables stay."""
        try:
            kept = state.load(self._state_file)
        except state.Damaged as error:
            self.problems.append(f"the kept state is damaged, waiting for the control plane: {error}")
            log.error("%s", error)
            return
        if kept is not None:
            self._state = kept
            self._accept(kept.view())

    # Following the control plane.
    def _follow(self) -> None:
        delay = 0.5
        while True:
            try:
                self.control.enrol(self.config.node, facts())
                self.control.renew_if_due()
                if self.config.engine == "kubernetes" and self._gateways.keep():
                    self._again()
                self._ask()
                delay = 0.5
            except NotEnrolled as error:
                log.info("%s", error)
                time.sleep(2)
            except (httpx.HTTPError, Refused, OSError) as error:
                log.warning("the control plane: %s", error)
                time.sleep(delay)
                delay = min(delay * 2, 15)
            except Exception:  # whatever it was, the node mustn't stop asking
                log.exception("following the control plane failed")
                time.sleep(delay)
                delay = min(delay * 2, 15)

    def _ask(self) -> None:
        have = self._state
        answer = self.control.get(
            "/agent/desired", generation=have.generation, mark=have.mark, wait=POLL_SECONDS
        )
        if answer is None:
            return
        fresh, base = have.after(answer), answer["base"]
        # What it was read from is many times as large.
        del answer, have
        self._take(fresh, base)

    def _take(self, fresh: state.State, base: int = 0) -> None:
        """What the control plane gave: what it closes is closed, then it is kept, then applied."""
        reached = following.rules(self._state, fresh, base)
        with self._lock:
            if reached is None:
                self._reached.clear()
            self._reached[fresh.generation] = reached
        self.kernel.follow(self.engine.rules(reached), fresh.generation)
        state.save(self._state_file, fresh)
        self._state = fresh
        self._accept(fresh.view())

    def _accept(self, document: Mapping[str, Any]) -> None:
        with self._lock:
            self.snapshot = self._pending = document
        self._changed.set()

    def _again(self) -> None:
        """Apply the last desired state once more: what it means on this node is something else now."""
        with self._lock:
            document = self.snapshot
        if document is not None:
            self._accept(document)

    # Applying.
    def _apply_loop(self) -> None:
        while True:
            self._changed.wait()
            self._changed.clear()
            with self._lock:
                document, self._pending = self._pending, None
            try:
                if document is not None:
                    self.apply(document)
                else:
                    self._check_gateway(self.publish())
            except GatewayBehind as error:
                log.warning("%s", error)
                self.problems = [str(error)]
                self._try_again(document)
            except Exception as error:
                log.exception("applying failed")
                self.problems = [f"the desired state can't be applied: {error}"]
                self._try_again(document)

    def _try_again(self, document: Mapping[str, Any] | None) -> None:
        with self._lock:
            superseded = self._pending is not None
            self._pending = self._pending or document
        if not superseded:
            self._pause(1)
        self._changed.set()

    def _pause(self, seconds: float) -> None:
        """Wait, unless another desired state has come: what it closes must be closed at once."""
        waiting_for, end = self.snapshot, time.monotonic() + seconds
        while self.snapshot is waiting_for and time.monotonic() < end:
            time.sleep(0.02)

    def _check_gateway(self, missing: list[str]) -> None:
        if missing:
            raise GatewayBehind(f"the gateway hasn't taken over {', '.join(missing)[:300]}")
        if self.problems and self._pending is None:
            self.problems = []

    def apply(self, document: Mapping[str, Any]) -> None:
        """Bring the node to a snapshot and acknowledge it once traffic goes as it says."""
        generation = document["generation"]
        with self._lock:
            reached = following.merged(self._reached, generation)
        here = self.engine.adapted(document)
        self._here = (document, here)
        boundary = here["boundary"]
        try:
            self.kernel.apply(boundary, self.engine.rules(reached), generation)
        finally:
            if self._names is not None:
                self._names.apply(boundary)
        self._take_over(here)
        self.edge.accept(document)
        self.engine.start(here)
        # What is gone ends only once no service and no route leads to it: not before Envoy follows.
        self._check_gateway(self.publish())
        for key in self.engine.end(here):
            self._tails.pop(key, None)
            self._sent.pop(key, None)
            self._withheld.forget(key)
        self.problems = []
        if reached is None or len(reached) > MANY or not self._applied:
            del reached, here, boundary
            memory.give_back()
        repeated, self._applied = self._applied == generation, generation
        # What is applied once more was acknowledged, or is with the next report: a control plane that is away
        # must hold up nothing that moves here.
        if not repeated:
            self._acknowledge(generation)

    def _take_over(self, document: Mapping[str, Any]) -> None:
        """After an upgrade: everything that runs is in the new tables before their programs judge."""
        if self.kernel.holding:
            self.kernel.set_services(document["boundary"]["services"], None)
        if self.kernel.take_over(self.engine.take_over(document)) and self._watch is not None:
            self._watch.check()

    def _acknowledge(self, generation: int) -> None:
        try:
            self.control.post("/agent/acknowledge", {"generation": generation, "applied": True, "errors": []})
        except (httpx.HTTPError, Refused, OSError) as error:
            log.warning("generation %s isn't acknowledged yet: %s", generation, error)

    def _phase_changed(self) -> None:
        self._changed.set()
        self._report.set()

    def _serving(self) -> set[str] | None:
        """Replicas that may get new connections: all but those known to be down."""
        snapshot = self.snapshot or {"endpoints": []}
        return {endpoint["id"] for endpoint in snapshot["endpoints"]} - self.engine.down()

    def publish(self) -> list[str]:
        """Services, gateway and names as they are now; what Envoy still lacks."""
        snapshot = self.snapshot
        if snapshot is None:
            return []
        known, here = self._here
        if known is not snapshot:
            here = self.engine.adapted(snapshot)
        boundary, serving = here["boundary"], self._serving()
        self.kernel.serve(boundary, serving)
        if self._names is not None:
            self._names.write(boundary)
        self.engine.published(here)
        stamp = parts.stamp(boundary, "gateway")
        expected = self.gateway.unchanged(stamp, serving)
        if expected is None:
            expected = self.gateway.apply(boundary["gateway"], serving, stamp)
        end = time.monotonic() + ENVOY_SECONDS
        while (missing := self.gateway.wait(expected, 0.1)) and time.monotonic() < end:
            if self.snapshot is not snapshot or self._pending is not None:
                break  # Envoy is given the newer one in a moment
        return missing

    # Reporting.
    def _report_loop(self) -> None:
        health_due = 0.0
        tidy_due = time.monotonic() + TIDY_SECONDS
        while True:
            self._report.wait(REPORT_SECONDS)
            # A moment for what belongs together.
            time.sleep(0.02)
            self._report.clear()
            self._collect()
            node = None
            if time.monotonic() >= health_due:
                self.kernel.refresh_floor()
                self.edge.refresh()
                if self._names is not None and self._names.refresh() and self.snapshot:
                    self._accept(self.snapshot)
                node = self.health()
                self.engine.noted(node)
                healthfile.write(self.config, node, self.control.enrolled)
                health_due = time.monotonic() + HEALTH_SECONDS
                if self.snapshot and self._applied == self.snapshot["generation"] and not self.problems:
                    self._acknowledge(self._applied)
            self._send(node)
            if time.monotonic() >= tidy_due:
                if self.snapshot is not None:
                    self.engine.tidy(self.snapshot)
                tidy_due = time.monotonic() + TIDY_SECONDS

    def _collect(self) -> None:
        for flow in self.kernel.flows():
            if flow.reason in _HOUSEKEEPING or check.is_own(flow):
                continue
            if self._names is not None and self._names.tried(flow):
                continue
            self._outbox.add("flows", [flow.__dict__])
        if self._names is not None:
            self._outbox.add("flows", self._names.take())
        for key in self.engine.running():
            tail = self._tails.get(key) or self.engine.tail(key, self._places.get(key, (0, 0)))
            if tail is None:
                continue
            self._places.pop(key, None)
            self._tails[key] = tail
            self._outbox.add("logs", tail.read())

    def _send(self, node: dict[str, Any] | None) -> None:
        """Phases and health by themselves, so that nothing that a process prints can hold them up."""
        replicas = [report for report in self.engine.reports() if self._sent.get(report["id"]) != report]
        held = [report for report in replicas if self._held(report)]
        try:
            if not self.control.enrolled:
                raise Refused("not enrolled yet")
            self._send_reports([report for report in replicas if report not in held], node)
            self._send_outbox()
            self._send_reports([report for report in held if not self._held(report)])
        except (httpx.HTTPError, Refused, OSError) as error:
            log.warning("the report isn't delivered: %s", error)

    def _held(self, report: dict[str, Any]) -> bool:
        """Whether it has to wait: that a run has ended is told after the last of its lines."""
        if report["phase"] != "ended":
            return False
        tail = self._tails.get(report["id"])
        return self._withheld.waits(report["id"], bool(self._outbox) or tail is None or tail.behind())

    def _send_reports(self, replicas: list[dict[str, Any]], node: dict[str, Any] | None = None) -> None:
        waiting = list(reporting.portions(replicas)) or ([[]] if node is not None else [])
        for number, portion in enumerate(waiting, 1):
            document: dict[str, Any] = {"replicas": portion}
            if node is not None and number == len(waiting):
                document |= {"node": node, "load": self._meter.read(self.engine.measured())}
            self.control.post("/agent/report", document)
            self._sent.update({report["id"]: report for report in portion})

    def _send_outbox(self) -> None:
        for _ in range(BATCHES):
            batch = self._outbox.batch()
            if not batch:
                break
            try:
                self.control.post("/agent/report", batch)
            except Refused as error:
                if not error.final:
                    self._outbox.returned()
                    raise
                log.error("a batch of lines and flows is dropped: %s", error)
                self._outbox.refused()
            except BaseException:
                self._outbox.returned()
                raise
            else:
                self._outbox.delivered()
        self._keep_places()

    def _keep_places(self) -> None:
        places = {key: tail.place for key, tail in self._tails.items()}
        if not self._outbox and places != self._saved:
            save_places(self._places_file, self._tails.values())
            self._saved = places

    def health(self) -> dict[str, Any]:
        """The node's own view of itself."""
        problems = [*self.problems, *self.kernel.health(), *(self._watch.problems if self._watch else [])]
        problems += self._names.problems() if self._names else []
        problems += [self._refused] if self._refused else []
        problems += self.edge.problems
        problems += self.engine.problems()
        problems += [self._gateways.problem] if self._gateways.problem else []
        if not self.gateway.healthy():
            problems.append("the gateway doesn't answer")
        return {
            "healthy": not problems,
            "problems": problems,
            "generation": self._applied,
            "replicas": len(self.engine.running()),
            "counters": self.kernel.counters(),
            "sockets_ended": self.kernel.connections.ended,
            "edge": self.edge.report(),
            "connections": self.kernel.usage(self.snapshot["boundary"]) if self.snapshot else {},
            "facts": {**facts(), **programs.facts(self.config), "addresses": self.kernel.closed()},
        }


def facts() -> dict[str, Any]:
    """What the node is, apart from what runs on it."""
    return {
        "kernel": platform.release(),
        "cpus": os.cpu_count(),
        "memory_mib": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20,
        "build_slots": addresses.BUILD_SLOTS,
    }
