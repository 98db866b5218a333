"""Traffic between two workloads with policy and accounting on against the same veths without any program."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from contextlib import AbstractContextManager

from infra.bench.pair import Pair, pair
from infra.bench.report import show

ROUNDS, SECONDS = 7, 1.5
KINDS = {
    "rr": "request and response, transactions/s",
    "crr": "connect, request, response, transactions/s",
    "stream": "stream, MiB/s",
}


def compare(name: str, a: str, b: str, other: Callable[[Pair], AbstractContextManager[None]]) -> None:
    """Measure every kind of traffic as it is (``a``) and within ``other`` (``b``), in turn, and show both."""
    found: dict[tuple[str, str, str], list[float]] = {}
    with pair() as two:
        two.measure("crr", two.server4, 1)
        for _ in range(ROUNDS):
            for kind in KINDS:
                for family, address in (("IPv4", two.server4), ("IPv6", two.server6)):
                    found.setdefault((kind, family, "A"), []).append(two.measure(kind, address, SECONDS))
                    with other(two):
                        found.setdefault((kind, family, "B"), []).append(two.measure(kind, address, SECONDS))
    rows = []
    for kind, text in KINDS.items():
        for family in ("IPv4", "IPv6"):
            first, second = (found[kind, family, way] for way in "AB")
            # Neighbours in time share what else the machine does: their ratio is steadier than the figures.
            ratio = statistics.median(x / y for x, y in zip(first, second, strict=True))
            rows.append(
                {
                    "traffic": f"{text}, {family}",
                    f"A: {a}": statistics.median(first),
                    f"B: {b}": statistics.median(second),
                    "A of B": ratio,
                }
            )
    show(
        name,
        rows,
        f"{ROUNDS} rounds of {SECONDS} s each in turn; the ratio is the median of the rounds' ratios.",
    )


def run() -> None:
    compare("veth", "policy", "plain", Pair.without_programs)
