"""The boundary compiler: 10,000 cells whole against one change in them, and the same at smaller sizes."""

from __future__ import annotations

import random
import statistics
import time

from cells.boundary import compile_topology
from cells.boundary.incremental import Incremental
from infra.bench import cells
from infra.bench.report import show

SIZES = (1, 100, 1_000, 10_000)
CHANGES = 200


def run() -> None:
    rows = []
    for size in SIZES:
        topology = cells.topology(size)
        begun = time.perf_counter()
        compile_topology(topology)
        whole = time.perf_counter() - begun
        followed, dice, times = Incremental(topology), random.Random(2), []  # noqa: S311
        for number in range(CHANGES):
            # Another answer to who may be called, and who is: neighbours are reached too.
            changed = cells.cell(dice.randrange(size) + 1, size, dice, strict=bool(number % 2))
            begun = time.perf_counter()
            followed.change(changed)
            times.append(time.perf_counter() - begun)
        worst = statistics.quantiles(times, n=100)[98]
        rows.append(
            {
                "cells": size,
                "A: whole s": whole,
                "B: one change, median ms": statistics.median(times) * 1e3,
                "p99 ms": worst * 1e3,
            }
        )
    note = "Three components in a cell, half of the cells call another. Goals at 10,000: 5 s whole, 5 ms for a change."
    show("compile", rows, note)
