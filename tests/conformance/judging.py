"""One world, asked and judged: by the oracle, by the explanations, and by what was reported."""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import NamedTuple

from cells.boundary.model import IDENTITY_WORLD, Topology
from infra.config import Config
from tests.conformance import oracle
from tests.conformance.engine import Engine, Report
from tests.conformance.explained import says
from tests.conformance.probes import EXTERNAL, Probe, probes_of
from tests.conformance.world import World


class Result(NamedTuple):
    """``wrong`` has a line for each probe that went otherwise than it should."""

    probes: int
    wrong: list[str]


def chosen(world: World, limit: int | None = None) -> list[Probe]:
    probes = probes_of(world)
    if limit is not None and len(probes) > limit:
        probes = random.Random(world.seed).sample(probes, limit)
    return probes


def judge(world: World, topology: Topology, config: Config, engine: Engine, probes: list[Probe]) -> Result:
    """Ask everything once, and what surprises a second time: a busy machine can be slow."""
    engine.reports()
    answers = engine.ask(probes)
    suspects = [p for p in probes if answers[p] not in oracle.expected(world, p)]
    again = engine.ask(suspects)
    wrong = [
        f"seed {world.seed}: {p}: got {again[p]!r}, expected one of {sorted(oracle.expected(world, p))}"
        for p in suspects
        if again[p] not in oracle.expected(world, p)
    ]
    for probe in probes:
        verdict, explanation = oracle.outcome(world, probe), says(topology, world, config, probe)
        if explanation not in ("", verdict):
            wrong.append(f"seed {world.seed}: {probe}: {verdict}, but explained as {explanation}")
    wrong += _reports(world, probes, engine.reports())
    return Result(len(probes), wrong)


def _reports(world: World, probes: Iterable[Probe], found: set[Report]) -> list[str]:
    """What passes only because of audit is reported, and nothing else is."""
    expected: dict[Report, Probe] = {}
    for probe in probes:
        if oracle.outcome(world, probe) == oracle.REPORTED:
            destination = IDENTITY_WORLD if probe.way == EXTERNAL else _meant(world, probe)
            source = world.owner(probe.caller).identity
            expected[Report(source, destination, probe.number, probe.protocol)] = probe
    lines = [
        f"seed {world.seed}: {probe}: passed in audit without a report"
        for report, probe in expected.items()
        if report not in found
    ]
    known = {thing.identity for thing in world.things}
    for report in found:
        if report.source in known and report not in expected:
            lines.append(f"seed {world.seed}: reported though nobody asked or it is allowed: {report}")
    return lines


def _meant(world: World, probe: Probe) -> int:
    callee = world.thing(probe.callee)
    if probe.way in ("name", "short"):
        namesake = oracle.meant(world, world.owner(probe.caller), callee, probe.way)
        assert namesake is not None
        return namesake.identity
    return callee.identity
