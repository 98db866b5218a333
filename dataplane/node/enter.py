"""``python -m dataplane.node.enter NAME USER FILE -- COMMAND…``: a process in one of the node's namespaces.

Waits until the agent has connected the namespace and written ``FILE``, goes there, gives every right up for
good and becomes the command. It keeps its container's files and control groups.
"""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import sys
import time
from pathlib import Path

from dataplane.agent.network import path_of
from infra import config as installation

_CLONE_NEWNET = 0x40000000
_PAUSE_SECONDS, _COMPLAIN_SECONDS = 0.1, 30.0
_UNTIL = 'until [ -e "$0" ]; do sleep 0.2; done; exec "$@"'
log = logging.getLogger("cytoplane.enter")


def _go(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if ctypes.CDLL(None, use_errno=True).setns(descriptor, _CLONE_NEWNET) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), str(path))
    finally:
        os.close(descriptor)


def _connected() -> bool:
    """Whether this network namespace has its link. /sys would show that of the container."""
    return any(
        line.strip().startswith("eth0:") for line in Path("/proc/self/net/dev").read_text().split("\n")
    )


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    # Until it is the command; as the first process of a container it would be asked in vain.
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    arguments = sys.argv[1:]
    if len(arguments) < 5 or arguments[3] != "--":
        raise SystemExit("usage: python -m dataplane.node.enter NAMESPACE USER FILE -- COMMAND…")
    name, user, file, _, *command = arguments
    said, path = time.monotonic(), path_of(installation.load(), name)
    while not os.path.ismount(path):
        # Made by the first container of the agent's pod.
        time.sleep(_PAUSE_SECONDS)
    _go(path)
    while not _connected():
        if time.monotonic() - said > _COMPLAIN_SECONDS:
            log.warning("still waiting for the node's agent to connect %s", name)
            said = time.monotonic()
        time.sleep(_PAUSE_SECONDS)
    limited = ["setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups", "--no-new-privs"]
    limited += ["--inh-caps=-all", "--ambient-caps=-all", "--bounding-set=-all", "--"]
    # As the user: the folder is its own, and without rights root doesn't see into it.
    os.execvp(limited[0], [*limited, "/bin/sh", "-c", _UNTIL, file, *command])  # noqa: S606


if __name__ == "__main__":
    main()
