"""Every test, in two halves side by side: ``python -m infra.run_tests``.

What loads kernel programs into one half, everything else into the other: each waits a good part of its
time for what it started. A half has a database, a Redis and a network number of its own, as two runs on
one machine would. Closes with a line that counts both.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from pathlib import Path
from typing import IO

ROOT = Path(__file__).resolve().parents[1]
#: Folders of the first half; the second one has all others.
KERNEL = ("bpf", "conformance", "dataplane")
#: Network numbers: a run takes its own and the second one after it.
_NETS, _APART = 16, 4
_print = threading.Lock()


def halves() -> dict[str, list[str]]:
    """Name → what pytest is given. New folders under ``tests`` are in the second half."""
    found = sorted(
        entry.name
        for entry in (ROOT / "tests").iterdir()
        if (entry.is_dir() and any(entry.rglob("test_*.py"))) or entry.name.startswith("test_")
    )
    return {
        "kernel": [f"tests/{name}" for name in found if name in KERNEL],
        "platform": [f"tests/{name}" for name in found if name not in KERNEL],
    }


def _follow(name: str, output: IO[str]) -> None:
    for line in output:
        with _print:
            print(f"{name:8} | {line.rstrip()}", flush=True)


def run(parts: dict[str, list[str]], arguments: list[str], net: int) -> int:
    """Run the parts at once; 0 if all passed."""
    running = []
    with tempfile.TemporaryDirectory() as folder:
        for position, (name, paths) in enumerate(parts.items()):
            count = Path(folder) / name
            command = [sys.executable, "-m", "pytest", "-c", "pyproject.toml", "--rootdir", ".", *paths]
            command += ["-p", "infra.count", f"--count-file={count}", *arguments]
            environment = {**os.environ, "CYTOPLANE_TEST_NET": str((net - _APART * position) % _NETS)}
            process = subprocess.Popen(
                command,
                cwd=ROOT,
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            assert process.stdout is not None
            thread = threading.Thread(target=_follow, args=(name, process.stdout))
            thread.start()
            running.append((process, thread, count))
        total: Counter[str] = Counter()
        failed = False
        for process, thread, count in running:
            failed |= process.wait() != 0
            thread.join()
            for entry in count.read_text().strip().split(", ") if count.exists() else ():
                number, _, kind = entry.partition(" ")
                total[kind] += int(number)
    print(", ".join(f"{total[kind]} {kind}" for kind in ("passed", "failed", "skipped")), flush=True)
    return int(failed)


def main() -> int:
    arguments = os.environ.get("PYTEST_ARGS", "").split()
    net = int(os.environ.get("CYTOPLANE_TEST_NET", "11"))
    # Who names files means those.
    named = any(argument.startswith("tests/") for argument in arguments)
    return run({"tests": []} if named else halves(), arguments, net)


if __name__ == "__main__":
    sys.exit(main())
