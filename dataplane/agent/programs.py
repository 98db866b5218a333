"""Loading the kernel programs when an agent starts, and what becomes of a node where they are refused.

A refused version never takes away what is loaded: its loader changes nothing until the kernel has taken
every program. If the earlier programs have the same tables the agent goes on with them, unhealthy; if not
it can only say so (``unready``), and what is in force stays in force without it.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from typing import Any

from bpf import loader
from dataplane.agent import upgrade
from dataplane.agent.kernel import KernelError
from infra.config import Config

log = logging.getLogger("cytoplane.agent")


def load(config: Config) -> str:
    """Load or upgrade; "" or, where earlier programs go on in place of these, why.

    Raises ``KernelError`` where there are none that this agent could feed.
    """
    try:
        _load(config)
    except KernelError as error:
        if not loader.status(config).get("loaded"):
            raise
        log.error("the earlier programs go on: %s", error)
        return f"this version's kernel programs aren't loaded, the earlier ones go on: {error}"
    return ""


def _load(config: Config) -> None:
    """Load or upgrade the programs in a process of its own: the compiler's memory goes with it.

    Those of another layout stay in force until ``Kernel.take_over``.
    """
    hold = upgrade.needed(config)
    if hold:
        log.info("another layout's programs are in force; handed over: %s", upgrade.hand_over(config))
    environment = {**os.environ, "CYTOPLANE_HOME": str(config.home), "CYTOPLANE_NET": str(config.net)}
    command = [sys.executable, "-m", "bpf.loader", "load", *(["--hold"] if hold else [])]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    try:
        answer = json.loads(done.stdout.strip().splitlines()[-1])
    except (ValueError, IndexError):
        raise KernelError(done.stderr.strip()[-500:] or "the loader gave no answer") from None
    if answer.get("error") or not (answer.get("loaded") or hold):
        raise KernelError(answer.get("error") or f"not everything is attached: {answer}")
    upgrade.note(config)


def facts(config: Config) -> dict[str, Any]:
    """Which loader the programs in force came by, and their layout; ``versions`` is what people are shown."""
    found = loader.status(config)
    by, layout = found.get("loader", ""), found.get("layout", "")
    return {"loader": by, "layout": layout, "versions": {"kernel programs": f"{layout} by {by}"}}
