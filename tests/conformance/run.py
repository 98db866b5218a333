"""Random worlds against the oracle: ``python -m tests.conformance.run --seed 1 --probes 10000``.

The last line is ``N probes, W wrong``; the exit status is 0 only if W is 0.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from bpf.tables import Tables
from dataplane.agent import network
from infra.config import Config
from tests.bpf.conftest import NET, load, remove
from tests.conformance import oracle
from tests.conformance.engine_machine import MachineEngine, Probe
from tests.conformance.world import World, generate


def probes_of(world: World) -> list[Probe]:
    """Every pair, port, way and family; a tenth of them without help of the socket hooks."""
    dice = random.Random(world.seed)
    found = []
    for caller in world.things:
        for callee in world.things:
            for port in callee.ports:
                for way in (oracle.NAME, oracle.SERVICE, oracle.CONTAINER):
                    for family in (4, 6):
                        hooked = caller is callee or dice.random() > 0.1
                        found.append(Probe(caller.identity, callee.identity, port.name, way, family, hooked))
    return found


def expected(world: World, probe: Probe) -> str:
    """The answer that the oracle expects: the callee's identity, or nobody's."""
    caller, callee = world.thing(probe.caller), world.thing(probe.callee)
    port = next(p for p in callee.ports if p.name == probe.port)
    if not probe.hooked and probe.way != oracle.CONTAINER:
        return ""  # a service address on the wire means nothing
    if probe.way == oracle.NAME:
        return oracle.by_name(world, caller, callee, port)
    return str(callee.identity) if oracle.answers(world, caller, callee, port, probe.way) else ""


def check(config: Config, tables: Tables, seed: int, limit: int | None = None) -> tuple[int, list[str]]:
    """Probe one world; the number of probes and a line for each wrong one."""
    world = generate(seed)
    engine = MachineEngine(world, config, tables)
    try:
        probes = probes_of(world)
        if limit is not None and len(probes) > limit:
            probes = random.Random(seed).sample(probes, limit)
        answers = engine.ask(probes)
        suspects = [p for p in probes if answers[p] != expected(world, p)]
        # A busy machine can be slow; what is wrong stays wrong when it is asked again.
        again = engine.ask(suspects)
        wrong = [
            f"seed {seed}: {p}: got {again[p]!r}, expected {expected(world, p)!r}"
            for p in suspects
            if again[p] != expected(world, p)
        ]
        return len(probes), wrong
    finally:
        engine.close()


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--engine", choices=["machine"], default="machine")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--probes", type=int, default=10000)
    arguments = parser.parse_args()
    with TemporaryDirectory() as home:
        config = Config(home=Path(home), net=NET)
        remove(config)
        try:
            load(config)
            network.ensure_host(config)
            tables = Tables(config)
            done, wrong, seed = 0, [], arguments.seed
            begun = time.monotonic()
            while done < arguments.probes:
                number, lines = check(config, tables, seed, arguments.probes - done)
                done, seed = done + number, seed + 1
                wrong += lines
                print(f"seed {seed - 1}: {done} probes in {time.monotonic() - begun:.0f} s", file=sys.stderr)
            for line in wrong[:50]:
                print(line)
            print(f"{done} probes, {len(wrong)} wrong")
            return 1 if wrong else 0
        finally:
            remove(config)


if __name__ == "__main__":
    sys.exit(main())
