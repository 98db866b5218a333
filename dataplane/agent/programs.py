"""Loading the kernel programs when an agent starts, and what becomes of a node where they are refused.

A refused version never takes away what is loaded: its loader changes nothing until the kernel has taken
every program. If the earlier programs have the same tables the agent goes on with them, unhealthy; if not
it can only say so (``unready``), and what is in force stays in force without it.
"""

from __future__ import annotations

import logging
from typing import Any

from bpf import loader
from dataplane.agent import kernel
from infra.config import Config

log = logging.getLogger("cytoplane.agent")


def load(config: Config) -> str:
    """Load or upgrade; "" or, where earlier programs go on in place of these, why.

    Raises ``KernelError`` where there are none that this agent could feed.
    """
    try:
        kernel.load(config)
    except kernel.KernelError as error:
        if not loader.status(config).get("loaded"):
            raise
        log.error("the earlier programs go on: %s", error)
        return f"this version's kernel programs aren't loaded, the earlier ones go on: {error}"
    return ""


def facts(config: Config) -> dict[str, Any]:
    """Which loader the programs in force came by, and their layout; ``versions`` is what people are shown."""
    found = loader.status(config)
    by, layout = found.get("loader", ""), found.get("layout", "")
    return {"loader": by, "layout": layout, "versions": {"kernel programs": f"{layout} by {by}"}}
