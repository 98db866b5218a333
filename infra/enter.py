"""Starts a part in a network namespace without rights: ``python -m infra.enter NAME USER -- command``.

Waits until the agent has made the namespace. The process keeps the host's mounts and cgroups.
"""

from __future__ import annotations

import os
import sys
import time

from dataplane.agent.network import path_of
from infra import config as installation


def main() -> None:
    name, user, dashes, *command = sys.argv[1:]
    if dashes != "--" or not command:
        raise SystemExit("usage: python -m infra.enter NAMESPACE USER -- COMMAND…")
    path = path_of(installation.load(), name)
    while not path.exists():
        time.sleep(0.1)
    nsenter = [
        "nsenter",
        f"--net={path}",
        "--",
        "setpriv",
        f"--reuid={user}",
        f"--regid={user}",
        "--init-groups",
    ]
    nsenter += ["--no-new-privs", "--inh-caps=-all", "--bounding-set=-all", "--", *command]
    os.execvp(nsenter[0], nsenter)  # noqa: S606


if __name__ == "__main__":
    main()
