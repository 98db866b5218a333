"""Asks from within a node, whose control groups its hooks are attached to.

A line of standard input is a job: ``id``, ``netns`` ("" for the node's own), and ``calls``, each with its
probe and where it goes (``address``, ``port``, ``said``; or ``name`` and the ``server`` that knows it). The
answer has the job's ``id`` and who answered each call. Jobs run beside each other.
"""

from __future__ import annotations

import json
import sys
import threading
from functools import partial
from pathlib import Path
from typing import Any

from dataplane.agent.namespaces import run_in
from tests.conformance.asking import Asker, Target
from tests.conformance.names import look_up
from tests.conformance.probes import Probe

_print = threading.Lock()


def target_of(call: dict[str, Any], family: int) -> Target | None:
    """Where a call goes. Asked in the caller's namespace."""
    address = look_up(call["server"], call["name"], family) if call["name"] else call["address"]
    return Target(address, call["port"], call["said"]) if address else None


def answers(calls: list[dict[str, Any]]) -> list[str]:
    """Who answered each call out of this thread's namespace."""
    probes = [Probe(**call["probe"]) for call in calls]
    known = dict(zip(probes, calls, strict=True))
    found = Asker(lambda probe: target_of(known[probe], probe.family)).ask(probes)
    return [found[probe] for probe in probes]


def _work(job: dict[str, Any]) -> None:
    ask = partial(answers, job["calls"])
    try:
        said: dict[str, Any] = {"answers": run_in(Path(job["netns"]), ask) if job["netns"] else ask()}
    except Exception as error:  # whoever waits must be told
        said = {"error": f"{type(error).__name__}: {error}"}
    with _print:
        print(json.dumps({"id": job["id"], **said}), flush=True)


def main() -> None:
    for line in sys.stdin:
        threading.Thread(target=_work, args=(json.loads(line),)).start()


if __name__ == "__main__":
    main()
