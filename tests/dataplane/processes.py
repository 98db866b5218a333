"""Real servers that tests of the data plane start: without rights, ended with the test or with its death."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

ENVOY = Path(sys.executable).with_name("envoy")
NOBODY = "nobody"
SECONDS = 30.0


def nobody() -> tuple[int, int]:
    """(user id, group id) of whom servers of tests run as."""
    entry = pwd.getpwnam(NOBODY)
    return entry.pw_uid, entry.pw_gid


@contextmanager
def folder(prefix: str) -> Iterator[Path]:
    """A temporary folder that everybody may pass through, as an installation's home."""
    made = Path(tempfile.mkdtemp(prefix=f"cytoplane-{prefix}-"))
    made.chmod(0o755)
    try:
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)


def free_port() -> int:
    """A TCP port of the loopback that nobody has."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def await_true(ready: Callable[[], bool], what: str, seconds: float = SECONDS) -> None:
    """Wait until it is so; fails with ``what`` otherwise."""
    end = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < end, what
        time.sleep(0.02)


@contextmanager
def process(
    command: list[str],
    log: Path,
    ready: Callable[[], bool],
    *,
    namespace: Path | None = None,
    rights: bool = False,
) -> Iterator[subprocess.Popen]:
    """A server until the end of the block; as nobody unless it needs ``rights``."""
    prefix = ["nsenter", f"--net={namespace}", "--"] if namespace else []
    prefix += ["setpriv", "--pdeathsig", "KILL"]
    if not rights:
        uid, gid = nobody()
        prefix += [f"--reuid={uid}", f"--regid={gid}", "--clear-groups", "--no-new-privs", "--inh-caps=-all"]
        prefix += ["--bounding-set=-all"]
    with log.open("wb") as output:
        started = subprocess.Popen([*prefix, "--", *command], cwd="/", stdout=output, stderr=output)
    try:
        await_true(
            lambda: started.poll() is not None or ready(),
            f"{command[0]} isn't ready: {log.read_text()[-2000:]}",
        )
        assert started.poll() is None, f"{command[0]} ended: {log.read_text()[-2000:]}"
        yield started
    finally:
        started.kill()
        started.wait(SECONDS)


def envoy_command(bootstrap: Path) -> list[str]:
    return [str(ENVOY), "-c", str(bootstrap), "--concurrency", "2", "--disable-hot-restart", "-l", "warning"]


def answers(path: Path) -> bool:
    """Whether something accepts on the unix socket."""
    with socket.socket(socket.AF_UNIX) as client:
        try:
            client.connect(str(path))
        except OSError:
            return False
    return True


def listens(port: int, address: str = "127.0.0.1") -> bool:
    """Whether something accepts on the TCP port."""
    try:
        with socket.create_connection((address, port), timeout=1):
            return True
    except OSError:
        return False


def root() -> bool:
    return os.geteuid() == 0
