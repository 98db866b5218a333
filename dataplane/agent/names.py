"""What the agent has to do with names: the resolver's table, what it learns, and what was asked for in vain."""

from __future__ import annotations

import contextlib
import json
import os
import socket
from collections.abc import Iterator, Mapping
from typing import Any

from bpf.reasons import CODES
from bpf.tables import Flow, Tables
from dataplane.agent import parts, upstreams
from dataplane.agent.kernel import Kernel
from dataplane.agent.learning import Learning
from dataplane.agent.lessons import Lessons
from dataplane.client import write_private
from dataplane.resolver import denials
from infra.config import Config

_LARGEST = 64 * 1024
_REASON = "NAME"
assert _REASON in CODES


class Names:
    """All of it, for the agent."""

    def __init__(self, config: Config, kernel: Kernel) -> None:
        self._config, self._kernel = config, kernel
        self._denials = NameDenials(config)
        # Of its own: a look-up never waits for a change of policy.
        self._tables = Tables(config)
        self.learning = Learning(self._tables, config.agent_dir / "learned.json", kernel.connections.changed)
        self._lessons = Lessons(config, self._tables, self.learning, kernel.connections.places)
        self._servers = upstreams.servers(config)
        self._boundary: dict[str, Any] = {}
        #: What the resolver's table was made of when it was written.
        self._written: tuple[bytes | None, dict[str, int], list[str]] | None = None

    def close(self) -> None:
        self._lessons.close()
        self._tables.close()

    def apply(self, boundary: Mapping[str, Any]) -> None:
        """Close what isn't declared any more; from the first time on the resolver may ask."""
        self._boundary = {"floor": boundary["floor"]}
        self.learning.update(boundary, self._floor(), self._kernel.emptied())
        self._lessons.start()

    def refresh(self) -> bool:
        """Look at the node again; whether the resolver has to ask other servers from now on."""
        if self._boundary:
            self.learning.set_floor(self._floor())
        before, self._servers = self._servers, upstreams.servers(self._config)
        return self._servers != before

    def _floor(self) -> list[str]:
        """What the snapshot closes, the platform's own ranges among it, and the node's addresses."""
        return [text for text, _ in [*self._boundary["floor"], *self._kernel.floor]]

    def write(self, boundary: Mapping[str, Any]) -> None:
        """Give the resolver its table, after everything in it is open."""
        file = self._config.resolver_dir / "table.json"
        stamps = self.learning.stamps()
        known = parts.stamp(boundary, "addresses", "names", "external_names")
        made_of = (known, stamps, list(self._servers))
        if known is not None and made_of == self._written and file.exists():
            return
        external = {
            identity: sorted({entry[0] for entry in entries})
            for identity, entries in boundary.get("external_names", {}).items()
        }
        document = {
            "askers": {address: identity for address, (identity, _) in boundary["addresses"].items()},
            "names": boundary["names"],
            "external": external,
            "stamps": stamps,
            "servers": self._servers if external else [],
        }
        text = json.dumps(document, sort_keys=True)
        if file.exists() and file.read_text() == text:
            self._written = made_of
            return
        file.parent.mkdir(parents=True, exist_ok=True)
        write_private(file, text.encode())
        os.chown(file, 0, file.parent.stat().st_gid)
        file.chmod(0o640)
        self._written = made_of

    def tried(self, flow: Flow) -> bool:
        """Whether a flow is what a self-check had the node try in vain."""
        return self._lessons.tried(flow)

    def take(self) -> Iterator[dict[str, Any]]:
        """Flows to report."""
        yield from self._denials.take()
        yield from self.learning.take()

    def problems(self) -> list[str]:
        """What keeps declared names of the outside world from being answered, as sentences."""
        if not self.learning.declared:
            return []
        found = [self._lessons.problem, self.learning.problem, "" if self._servers else upstreams.NONE]
        return [text for text in found if text]


class NameDenials:
    """The agent's end of the resolver's socket. What comes is the resolver's word, so it is checked."""

    def __init__(self, config: Config) -> None:
        folder = config.resolver_dir
        folder.mkdir(parents=True, exist_ok=True)
        path = denials.path_in(folder)
        path.unlink(missing_ok=True)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._socket.setblocking(False)
        os.chown(path, 0, folder.stat().st_gid)
        path.chmod(0o660)

    def take(self) -> Iterator[dict[str, Any]]:
        """Flows to report, in the form of the kernel's."""
        while True:
            try:
                rows = json.loads(self._socket.recv(_LARGEST))
            except OSError:
                return
            except (ValueError, RecursionError):
                continue
            for row in rows if isinstance(rows, list) else ():
                with contextlib.suppress(TypeError, ValueError, LookupError, OverflowError):
                    yield _flow(int(row[0]), str(row[1]), int(row[2]), len(row) > 3 and row[3] is True)


def _flow(identity: int, name: str, count: int, audited: bool) -> dict[str, Any]:
    return {
        "source": identity,
        "destination": 0,
        "remote": name[: denials.LONGEST_NAME],
        "port": 53,
        "protocol": socket.IPPROTO_UDP,
        "direction": 0,
        # In audit it was answered, and would have been refused otherwise.
        "allowed": audited,
        "reason": _REASON,
        "rule": 0,
        "packets": count,
        "bytes": 0,
    }
