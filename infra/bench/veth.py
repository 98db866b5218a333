"""Traffic between two workloads with policy and accounting on against the same veths without any program."""

from __future__ import annotations

import statistics

from infra.bench.pair import pair
from infra.bench.report import show

ROUNDS, SECONDS = 7, 1.5
KINDS = {
    "rr": "request and response, transactions/s",
    "crr": "connect, request, response, transactions/s",
    "stream": "stream, MiB/s",
}


def run() -> None:
    found: dict[tuple[str, str, str], list[float]] = {}
    with pair() as two:
        two.measure("crr", two.server4, 1)
        for _ in range(ROUNDS):
            for kind in KINDS:
                for family, address in (("IPv4", two.server4), ("IPv6", two.server6)):
                    found.setdefault((kind, family, "A"), []).append(two.measure(kind, address, SECONDS))
                    with two.without_programs():
                        found.setdefault((kind, family, "B"), []).append(two.measure(kind, address, SECONDS))
    rows = []
    for kind, text in KINDS.items():
        for family in ("IPv4", "IPv6"):
            a, b = (found[kind, family, way] for way in "AB")
            # Neighbours in time share what else the machine does: their ratio is steadier than the figures.
            ratio = statistics.median(x / y for x, y in zip(a, b, strict=True))
            rows.append(
                {
                    "traffic": f"{text}, {family}",
                    "A: policy": statistics.median(a),
                    "B: plain": statistics.median(b),
                    "A of B": ratio,
                }
            )
    show(
        "veth",
        rows,
        f"{ROUNDS} rounds of {SECONDS} s each in turn; the ratio is the median of the rounds' ratios.",
    )
