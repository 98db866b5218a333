"""The agent's end of the resolver's questions: one at a time, each within a moment, whatever is sent."""

from __future__ import annotations

import contextlib
import ipaddress
import json
import logging
import os
import re
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from bpf import layout
from bpf.tables import EGRESS, Flow, Tables
from dataplane import addresses, check
from dataplane.agent import parts, sockets
from dataplane.agent.connections import Place
from dataplane.agent.learning import Learning
from dataplane.resolver.lessons import LARGEST, path_in
from infra.config import Config

log = logging.getLogger("cytoplane.agent")
#: Seconds for who asks, between looks at what has ended, for which a resolver's complaint is believed.
PATIENCE, TIDY_SECONDS, BELIEVED = 0.5, 2.0, 30.0
#: A datagram flow without a socket of its own counts as a connection for so long.
_UDP_IDLE = 60.0
_LONGEST_PROBLEM, _REMEMBERED = 200, 512
_NAME = re.compile(r"[a-z0-9_.-]{1,253}\Z")


class Lessons:
    """The socket and a thread of its own."""

    def __init__(
        self, config: Config, tables: Tables, learning: Learning, places: Callable[[set[int]], list[Place]]
    ) -> None:
        self._tables, self._learning, self._places = tables, learning, places
        path = path_in(config.resolver_dir)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.bind(str(path))
        os.chown(path, 0, path.parent.stat().st_gid)
        path.chmod(0o660)
        self._complaint = ("", 0.0)
        #: (identity, port) of those that were sent what nobody asked for, the last ones.
        self._tried: deque[tuple[int, int]] = deque(maxlen=_REMEMBERED)
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="lessons", daemon=True)

    def start(self) -> None:
        """From now on the resolver is answered. Call once desired state is known: what isn't declared is refused."""
        if not self._thread.is_alive():
            self._socket.listen(64)
            self._socket.settimeout(0.5)
            self._thread.start()

    def close(self) -> None:
        self._closed.set()
        if self._thread.is_alive():
            self._thread.join()
        self._socket.close()

    @property
    def problem(self) -> str:
        """What the resolver complains about, lately."""
        text, at = self._complaint
        return text if time.monotonic() - at < BELIEVED else ""

    def _run(self) -> None:
        tidy_due = time.monotonic() + TIDY_SECONDS
        while not self._closed.is_set():
            with contextlib.suppress(TimeoutError):
                client, _ = self._socket.accept()
                with client:
                    try:
                        client.settimeout(PATIENCE)
                        self._answer(client)
                    except OSError:
                        pass
                    except Exception:  # the next question must be answered
                        log.exception("a question of the resolver failed")
            if time.monotonic() >= tidy_due:
                try:
                    self._learning.tidy(self._busy)
                except Exception:  # likewise
                    log.exception("ended answers can't be looked at")
                tidy_due = time.monotonic() + TIDY_SECONDS

    def _answer(self, client: socket.socket) -> None:
        data = b""
        end = time.monotonic() + PATIENCE
        while not data.endswith(b"\n"):
            piece = client.recv(LARGEST)
            data += piece
            if not piece or len(data) > LARGEST or time.monotonic() > end:
                return
        try:
            answer = self._of(json.loads(data))
        except (ValueError, KeyError, TypeError, RecursionError, OverflowError):
            return
        client.sendall(json.dumps(answer).encode() + b"\n")

    def _of(self, question: dict[str, Any]) -> dict[str, Any]:
        if "problem" in question:
            self._complaint = (str(question["problem"])[:_LONGEST_PROBLEM], time.monotonic())
            return {}
        if "uninvited" in question:
            address, port = question["uninvited"]
            return {"sent": self._uninvited(str(ipaddress.ip_address(str(address))), int(port))}
        name = str(question["name"])
        if not _NAME.match(name):
            raise ValueError(name)
        addresses = [str(ipaddress.ip_address(str(a))) for a in question["addresses"]]
        lesson = self._learning.teach(int(question["identity"]), name, addresses, int(question["ttl"]))
        return {"addresses": lesson.addresses, "ttl": lesson.ttl, "refusal": lesson.refusal}

    def _uninvited(self, address: str, port: int) -> bool:
        """Send a workload's self-check the packet that mustn't arrive. To workloads of this node only: what
        the resolver says is checked, so it can't send anybody else anything as the node."""
        # A gateway's addresses towards cells are cells', behind an interface that is the platform's.
        identity, interface = self._tables.here(address)
        if parts.platforms(identity) or parts.platforms(interface) or not 0 < port < 2**16:
            return False
        self._tried.append((identity, port))
        check.uninvited(address, port)
        return True

    def tried(self, flow: Flow) -> bool:
        """Whether a flow is such a packet, refused as it has to be: nobody need be told."""
        node = flow.source == addresses.IDENTITY_NODE and flow.protocol == sockets.UDP
        return node and not flow.allowed and (flow.destination, flow.port) in self._tried

    def _busy(self, identity: int) -> set[str]:
        """Addresses outside that replicas of an identity have connections to."""
        found: set[str] = set()
        for place in self._places({identity}):
            try:
                found |= {layout.unpack_address(s.remote) for s in sockets.listing(place.path)}
            except FileNotFoundError:
                continue  # it is gone, with all its sockets
            for flow in self._tables.flows_of(place.ifindex):
                if flow.protocol == sockets.UDP and flow.initiator == EGRESS and flow.age < _UDP_IDLE:
                    found.add(flow.remote)
        return found
