"""Traffic between two workloads past the node's connection tracking against the same traffic tracked."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator

from dataplane.agent import network
from infra.bench.pair import Pair
from infra.bench.veth import compare


@contextlib.contextmanager
def tracked(two: Pair) -> Iterator[None]:
    """The node's rules without the one that keeps workloads' packets out of its tracking."""
    chain = ["inet", f"cytoplane_{two.config.net}", "direct"]
    subprocess.run(["nft", "flush", "chain", *chain], check=True)
    try:
        yield
    finally:
        network.ensure_host(two.config)


def run() -> None:
    compare("tracking", "untracked", "tracked", tracked)
