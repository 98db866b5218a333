"""Traffic between two workloads past the node's connection tracking against the same traffic tracked."""

from __future__ import annotations

import contextlib
import statistics
import subprocess
from collections.abc import Iterator

from dataplane.agent import network
from infra.bench.pair import Pair, pair
from infra.bench.report import show
from infra.bench.veth import KINDS, ROUNDS, SECONDS


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
    found: dict[tuple[str, str, str], list[float]] = {}
    with pair() as two:
        two.measure("crr", two.server4, 1)
        for _ in range(ROUNDS):
            for kind in KINDS:
                for family, address in (("IPv4", two.server4), ("IPv6", two.server6)):
                    found.setdefault((kind, family, "A"), []).append(two.measure(kind, address, SECONDS))
                    with tracked(two):
                        found.setdefault((kind, family, "B"), []).append(two.measure(kind, address, SECONDS))
    rows = []
    for kind, text in KINDS.items():
        for family in ("IPv4", "IPv6"):
            a, b = (found[kind, family, way] for way in "AB")
            rows.append(
                {
                    "traffic": f"{text}, {family}",
                    "A: untracked": statistics.median(a),
                    "B: tracked": statistics.median(b),
                    "A of B": statistics.median(x / y for x, y in zip(a, b, strict=True)),
                }
            )
    show(
        "tracking",
        rows,
        f"{ROUNDS} rounds of {SECONDS} s each in turn; the ratio is the median of the rounds' ratios.",
    )
