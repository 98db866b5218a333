"""Random worlds against the oracle: ``python -m tests.conformance.run --seed 1 --probes 10000``.

The last line is ``N probes, W wrong``; the exit status is 0 only if W is 0.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager

from cells.boundary import compile_topology
from tests.conformance.direct import topology
from tests.conformance.engine import Site
from tests.conformance.engine_kubernetes import kubernetes
from tests.conformance.engine_machine import machine
from tests.conformance.judging import Result, chosen, judge
from tests.conformance.world import generate

#: Where worlds can run, by the name of the engine.
SITES: dict[str, Callable[[], AbstractContextManager[Site]]] = {
    "kubernetes": kubernetes,
    "machine": machine,
}


def check(site: Site, seed: int, limit: int | None = None) -> Result:
    """Probe one world."""
    world = generate(seed)
    compiled_from = topology(world, site.config)
    engine = site.engine(world, compiled_from, compile_topology(compiled_from))
    try:
        return judge(world, compiled_from, site.config, engine, chosen(world, limit))
    finally:
        engine.close()


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--engine", choices=sorted(SITES), default="machine")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--probes", type=int, default=10000)
    arguments = parser.parse_args()
    with SITES[arguments.engine]() as site:
        done, wrong, seed = 0, [], arguments.seed
        begun = time.monotonic()
        while done < arguments.probes:
            result = check(site, seed, arguments.probes - done)
            done, seed = done + result.probes, seed + 1
            wrong += result.wrong
            print(f"seed {seed - 1}: {done} probes in {time.monotonic() - begun:.0f} s", file=sys.stderr)
        for line in wrong[:50]:
            print(line)
        print(f"{done} probes, {len(wrong)} wrong")
        return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
