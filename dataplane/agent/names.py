"""Names that workloads asked for in vain, as the resolver counts them: flows that never came to be."""

from __future__ import annotations

import contextlib
import json
import os
import socket
from collections.abc import Iterator
from typing import Any

from bpf.reasons import CODES
from dataplane.resolver import denials
from infra.config import Config

_LARGEST = 64 * 1024
_REASON = "NAME"
assert _REASON in CODES


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
                    yield _flow(int(row[0]), str(row[1]), int(row[2]))


def _flow(identity: int, name: str, count: int) -> dict[str, Any]:
    return {
        "source": identity,
        "destination": 0,
        "remote": name[: denials.LONGEST_NAME],
        "port": 53,
        "protocol": socket.IPPROTO_UDP,
        "direction": 0,
        "allowed": False,
        "reason": _REASON,
        "rule": 0,
        "packets": count,
        "bytes": 0,
    }
