"""Helm through pyhelm3: one release for each cell, bounded in time, its failures in words.

It is started for changes only; what it has written down is read by ``records``.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Coroutine, Iterator
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import semver
from pyhelm3 import Command
from pyhelm3.errors import (
    ConnectionError as NoConnection,
)
from pyhelm3.errors import (
    Error,
    ReleaseNotFoundError,
    ResourceAlreadyExistsError,
)

from dataplane.drivers.interface import Denied, DriverError, Rejected, Taken, Unreachable
from dataplane.drivers.kubernetes.api import admission
from dataplane.drivers.kubernetes.budget import Budget
from dataplane.drivers.kubernetes.kubeconfig import Kubeconfig
from dataplane.drivers.kubernetes.memory import memory_file
from dataplane.drivers.kubernetes.records import RELEASES

#: Longest that Helm may take, in seconds: an API server that answers nothing mustn't hold a worker.
LONGEST = 40.0
_TIMEOUT = f"{LONGEST:.0f}s"
_T = TypeVar("_T")
#: Nobody, not even root, can make it: Helm finds nothing there and leaves nothing.
_NOWHERE = "/proc/nowhere"
_HOMES = (
    f"HOME={_NOWHERE}",
    *(f"HELM_{what}_HOME={_NOWHERE}" for what in ("CACHE", "CONFIG", "DATA")),
    "PATH=/usr/bin:/bin",
)
#: Where what the cluster offers is kept for the time of one run: Helm asks eight times otherwise, each time
#: with a request for every version of every group.
_OFFERED, _PREFIX = "KUBECACHEDIR", "cytoplane-helm-"
#: Older than this no run has it any more, seconds.
_LEFT = 10 * LONGEST
#: What of the environment concerns the way to a cluster.
_KEPT = ("HTTPS_PROXY", "https_proxy", "NO_PROXY", "no_proxy", "SSL_CERT_FILE", "SSL_CERT_DIR")
_PASSING = re.compile(
    r"timeout|timed out|deadline|connection refused|connection reset|\beof\b|no route to host"
    r"|unreachable|another operation|etcdserver|too many requests|try again|is currently unable",
)
_DENIED = re.compile(r"unauthorized|forbidden|x509|certificate|you must be logged in")
_TAKEN = re.compile(r"invalid ownership metadata|already exists|cannot be imported")


@cache
def executable() -> str:
    """helm-binary's executable: beside this interpreter, whatever ``PATH`` says. Raises ``Rejected``."""
    own = Path(sys.prefix) / "bin" / "helm"
    found = str(own) if own.exists() else shutil.which("helm")
    if found is None:
        raise Rejected("The helm executable isn't installed (Python package helm-binary).")
    return found


@cache
def _version(path: str) -> semver.Version:
    text = subprocess.run(
        ["env", "-i", *_HOMES, path, "version", "--template", "{{ .Version }}"],
        check=True,
        capture_output=True,
        text=True,
        timeout=LONGEST,
    )
    return semver.Version.parse(text.stdout.removeprefix("v"))


@contextlib.contextmanager
def offers() -> Iterator[str]:
    """A folder for what a cluster offers, for one run; those that killed workers left go with it."""
    for left in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):
            status = left.lstat()
            if status.st_uid == os.getuid() and time.time() - status.st_mtime > _LEFT:
                shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=_PREFIX, ignore_cleanup_errors=True) as folder:
        yield folder


class _Command(Command):
    """Helm ends with the worker that started it: what goes on afterwards is the next worker's alone."""

    def client_version(self) -> semver.Version:
        return _version(executable())

    async def run(self, command: list[Any], input: bytes | None = None) -> bytes:
        kept = [f"{name}={os.environ[name]}" for name in _KEPT if name in os.environ]
        with offers() as offered:
            # Workers have no home of their own, and neither plugins nor settings of anybody's are wanted.
            clean = ["env", "-i", *_HOMES, f"{_OFFERED}={offered}", *kept]
            return await super().run(["--pdeathsig", "KILL", "--", *clean, executable(), *command], input)


class Helm:
    """The releases of one cluster. All methods raise ``DriverError``."""

    def __init__(self, kubeconfig: Kubeconfig, chart: Path, budget: Budget) -> None:
        self._kubeconfig = kubeconfig
        self._chart = chart
        self._budget = budget

    def _command(self, path: str) -> Command:
        return _Command(executable="setpriv", kubeconfig=Path(path), history_max_revisions=3)

    def _run(self, work: Coroutine[Any, Any, _T]) -> _T:
        try:
            limit = min(LONGEST, self._budget.left())
        except DriverError:
            work.close()
            raise

        async def bounded() -> _T:
            async with asyncio.timeout(limit):
                return await work

        try:
            return asyncio.run(bounded())
        except TimeoutError:
            raise Unreachable(f"{self._kubeconfig.server} didn't answer Helm in {limit:.0f} s.") from None
        except Error as error:
            raise failure(error) from None

    def install(self, name: str, values: dict[str, Any]) -> None:
        """Install or upgrade."""

        async def work(path: str) -> None:
            await self._command(path).install_or_upgrade(
                name, self._chart, values, namespace=RELEASES, create_namespace=True, timeout=_TIMEOUT
            )

        with memory_file(self._kubeconfig.as_yaml()) as path:
            self._run(work(path))

    def uninstall(self, name: str) -> None:
        """Delete a release and what it holds; nothing happens if there is none."""

        async def work(path: str) -> None:
            with contextlib.suppress(ReleaseNotFoundError):
                await self._command(path).uninstall(name, namespace=RELEASES, timeout=_TIMEOUT)

        with memory_file(self._kubeconfig.as_yaml()) as path:
            self._run(work(path))


def failure(error: Error) -> DriverError:
    """What Helm said, in the words of the interface. Its output holds no credentials."""
    text = error.stderr.decode(errors="replace").strip()
    lines = [line for line in text.splitlines() if line.startswith("Error:")] or text.splitlines()[-1:]
    said = " ".join(lines).removeprefix("Error: ")[:500] or f"exit code {error.returncode}"
    if (refused := admission(said)) is not None:
        return refused
    lower = said.lower()
    if isinstance(error, ResourceAlreadyExistsError) or _TAKEN.search(lower):
        return Taken(f"Something that isn't ours has the cell's place: {said}")
    if isinstance(error, NoConnection) or _PASSING.search(lower):
        return Unreachable(f"The cluster can't answer at the moment: {said}")
    if _DENIED.search(lower):
        return Denied(f"The cluster refuses the kubeconfig's credentials: {said}")
    return Rejected(f"The cluster refuses the cell: {said}")
