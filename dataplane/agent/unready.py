"""A node whose kernel side can't be brought up: it says why, starts nothing and tries again.

What was in force before goes on: an upgrade that the verifier refuses leaves the earlier programs at work.
"""

from __future__ import annotations

import logging
import subprocess
import time
from collections.abc import Callable
from typing import Any

import httpx

from bpf.sys import LayoutError
from dataplane.agent import network
from dataplane.agent.kernel import KernelError
from dataplane.client import ControlPlane, NotEnrolled, Refused

log = logging.getLogger("cytoplane.agent")
FIRST_PAUSE, LONGEST_PAUSE = 5.0, 120.0
#: What bringing up the kernel side may fail with for a reason that can pass.
_FAILURES = (KernelError, LayoutError, network.NetworkError, subprocess.CalledProcessError, OSError)


def bring_up(prepare: Callable[[], None], control: ControlPlane, name: str, facts: dict[str, Any]) -> None:
    """Call ``prepare`` until it succeeds; every failure is reported as the node's problem."""
    pause = FIRST_PAUSE
    while True:
        try:
            prepare()
            return
        except _FAILURES as error:
            problem = f"the node can't enforce isolation, so nothing is started: {_sentence(error)}"
            log.error("%s", problem)
            _report(control, name, facts, problem)
            time.sleep(pause)
            pause = min(pause * 2, LONGEST_PAUSE)


def _sentence(error: Exception) -> str:
    if isinstance(error, subprocess.CalledProcessError):
        said = error.stderr.strip() if isinstance(error.stderr, str) else ""
        return f"{error.cmd[0]} failed: {said[:300] or error.returncode}"
    return str(error)


def _report(control: ControlPlane, name: str, facts: dict[str, Any], problem: str) -> None:
    node = {"healthy": False, "problems": [problem], "generation": 0, "replicas": 0, "facts": facts}
    try:
        control.enrol(name, facts)
        control.post("/agent/report", {"replicas": [], "node": node})
    except (httpx.HTTPError, Refused, NotEnrolled, OSError) as error:
        log.warning("the control plane doesn't know of it: %s", error)
