"""Every test, in groups side by side: ``python -m infra.run_tests``.

Each group waits a good part of its time for what it started, so that three keep two cores busy: what loads
kernel programs; what needs nodes of a Kubernetes cluster; everything else. A group has a database, a Redis and a
network number of its own, as several runs on one machine would. Closes with a line for
each failure and one that counts all.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from types import FrameType
from typing import IO

ROOT = Path(__file__).resolve().parents[1]
#: Group → beginnings of its files' paths under ``tests``. The longest that fits decides; one group has "",
#: so that a new folder is in it. Within a group they are run in this order: what leaves an installation or
#: a cluster at work for the rest of the run comes late.
GROUPS = {
    # Provisioning asks the API server that tests of drivers have.
    "kernel": ("bpf/", "dataplane/", "conformance/", "cells/test_provisioning.py", "infra/"),
    "cluster": ("dataplane/agent/pods/",),
    "platform": ("", "dataplane/planes/", "dataplane/registry/", "web/", "e2e/"),
}
#: What names one of these fixtures is in the group of the cluster, wherever it stands; or in end-to-end tests,
#: which have an installation in any case, the engines'.
_NODES = re.compile(r"\b(two_nodes|bare_nodes|pod_plane)\b")
_ENGINES = re.compile(r"\bengine: Engine\b")
#: Network numbers: a run takes its own and the second one after it.
_NETS, _APART = 16, 4
#: Groups that let others go first where processors are short: those wait for answers within fractions of a
#: second, these for parts that take seconds to start.
_PATIENT = ("cluster", "platform")
#: Where the kernel shares processors out by sessions (autogroups), niceness counts within a session alone, and
#: every installation and cluster that a test starts is one. So each group is a session, and one that can't wait
#: has this niceness as a whole: its tests waited for a processor three times as long as they had one.
_AHEAD = -5
_print = threading.Lock()


def groups() -> dict[str, list[str]]:
    """Name → the files that pytest is given."""
    found: dict[str, list[tuple[int, str]]] = {name: [] for name in GROUPS}
    for file in (ROOT / "tests").rglob("test_*.py"):
        own = file.relative_to(ROOT / "tests").as_posix()
        _, name, position = max(
            (len(beginning), name, position)
            for name, beginnings in GROUPS.items()
            for position, beginning in enumerate(beginnings)
            if own.startswith(beginning)
        )
        whole = own.startswith("e2e/")
        if (_ENGINES if whole else _NODES).search(file.read_text()):
            name, position = "cluster", len(GROUPS["cluster"]) + whole
        found[name].append((position, f"tests/{own}"))
    return {name: [path for _, path in sorted(files)] for name, files in found.items()}


def numbers(net: int) -> dict[str, int]:
    """Name → the group's network number in a run with this one."""
    return {name: (net - _APART * position) % _NETS for position, name in enumerate(GROUPS)}


def _follow(name: str, output: IO[str]) -> None:
    for line in output:
        with _print:
            print(f"{name:8} | {line.rstrip()}", flush=True)


def _put_ahead(process: subprocess.Popen[str]) -> None:
    # Not every kernel has it, and only root may.
    with contextlib.suppress(OSError):
        Path(f"/proc/{process.pid}/autogroup").write_text(str(_AHEAD))


def _pass_on(processes: Iterable[subprocess.Popen[str]]) -> None:
    """Who ends this run ends its groups, which the terminal doesn't reach: each removes what it started."""

    def end(number: int, frame: FrameType | None) -> None:
        for process in processes:
            process.send_signal(signal.SIGINT)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, end)


def run(parts: dict[str, list[str]], arguments: list[str], net: int) -> int:
    """Run the parts at once; 0 if all passed."""
    running = []
    processes: list[subprocess.Popen[str]] = []
    own = numbers(net)
    _pass_on(processes)
    with tempfile.TemporaryDirectory() as folder:
        for name, paths in parts.items():
            count = Path(folder) / name
            command = [sys.executable, "-m", "pytest", "-c", "pyproject.toml", "--rootdir", ".", *paths]
            if name in _PATIENT:
                command = ["nice", "-n", "5", *command]
            command += ["-p", "infra.count", f"--count-file={count}", "--durations=10", *arguments]
            environment = {**os.environ, "CYTOPLANE_TEST_NET": str(own.get(name, net))}
            process = subprocess.Popen(
                command,
                cwd=ROOT,
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
            )
            processes.append(process)
            if len(parts) > 1 and name not in _PATIENT:
                _put_ahead(process)
            assert process.stdout is not None
            thread = threading.Thread(target=_follow, args=(name, process.stdout))
            thread.start()
            running.append((process, thread, count))
        total: Counter[str] = Counter()
        failed = False
        failures: list[str] = []
        for process, thread, count in running:
            ended = process.wait()
            failed |= ended != 0
            thread.join()
            if not count.exists():
                failures.append(f"{count.name}: ended with {ended} and no count")
                continue
            line, *more = count.read_text().splitlines()
            failures += [f"{count.name}: {failure}" for failure in more]
            for entry in line.split(", "):
                number, _, kind = entry.partition(" ")
                total[kind] += int(number)
    # Once more at the end: of a run's output, its last lines are what is looked at first.
    for failure in failures:
        print(f"FAILED {failure}", flush=True)
    print(", ".join(f"{total[kind]} {kind}" for kind in ("passed", "failed", "skipped")), flush=True)
    return int(failed)


def main() -> int:
    arguments = os.environ.get("PYTEST_ARGS", "").split()
    net = int(os.environ.get("CYTOPLANE_TEST_NET", "11"))
    # Who names files means those.
    named = any(argument.startswith("tests/") for argument in arguments)
    return run({"tests": []} if named else groups(), arguments, net)


if __name__ == "__main__":
    sys.exit(main())
