"""Starts the package index proxy of builds: listens in its namespace, fetches from the host's.

Only the listening socket lies where builds can reach it, so the proxy needs no way out of the
platform's networks; it is the one place that knows the operator's index and its credentials.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time

from dataplane import addresses
from dataplane.agent.namespaces import run_in
from dataplane.agent.network import path_of
from infra import config as installation
from infra import users

DEFAULT_INDEX = "https://pypi.org/simple/"


def _index(config: installation.Config) -> str:
    """The operator's index: pip's own setting, else the public one."""
    command = [sys.executable, "-m", "pip", "config", "get", "global.index-url"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return config.index_url or done.stdout.strip() or DEFAULT_INDEX


def main() -> None:
    config = installation.load()
    path = path_of(config, "index")
    while not path.exists():
        time.sleep(0.1)
    own = addresses.workload(config, addresses.INDEX_PROXY)

    def listen() -> socket.socket:
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((own.v4, addresses.INDEX_PROXY_PORT))
        listener.listen(128)
        return listener

    listener = run_in(path, listen)
    os.set_inheritable(listener.fileno(), True)
    environment = {
        **{
            key: value
            for key, value in os.environ.items()
            if key.endswith(("_CA_BUNDLE", "_CERT_FILE")) or key == "PATH"
        },
        "PROXPI_INDEX_URL": _index(config),
        "PROXPI_CACHE_DIR": str(config.home / "index" / "files"),
        "PROXPI_CACHE_SIZE": str(2 * 2**30),
        "HOME": str(config.home / "index"),
        # A file that is still being fetched is waited for instead of being fetched past the cache.
        "PROXPI_DOWNLOAD_TIMEOUT": "20",
    }
    user = users.name(config, "-index")
    command = [
        "setpriv",
        f"--reuid={user}",
        f"--regid={user}",
        "--init-groups",
        "--no-new-privs",
        "--inh-caps=-all",
    ]
    command += [
        "--bounding-set=-all",
        "--",
        sys.executable,
        "-m",
        "gunicorn",
        "--bind",
        f"fd://{listener.fileno()}",
    ]
    command += [
        "--threads",
        "8",
        "--worker-tmp-dir",
        "/dev/shm",  # noqa: S108
        "--log-level",
        "warning",
        "proxpi.server:app",
    ]
    os.execvpe(command[0], command, environment)  # noqa: S606


if __name__ == "__main__":
    main()
