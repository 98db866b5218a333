"""From the commit of a changed declaration to the kernel's verdict, with few cells and with many.

Everything between is the running installation's: queue and worker, the database, Redis, the agents'
listener with its gateway, the agent, the tables of the kernel. Only the change itself is made in this
process, by the same action as the API's, so that the moment of its commit is known.
"""

from __future__ import annotations

import random
import statistics
import threading
import time

import redis

from bpf import layout, loader
from bpf import sys as bpf
from infra.bench import rows
from infra.bench.report import show
from infra.config import Config, load

SIZES = (1, 100, 1_000)
CHANGES = 400
#: Seconds that a change may take, and that a plane gets to take up a thousand cells.
_PATIENCE, FIRST = 20.0, 180.0
_TCP, _EGRESS, _PORT, _ALLOW = 6, 0, 5432, 1


class Verdict:
    """What the programs would find in the tables that are in force."""

    def __init__(self, config: Config) -> None:
        folder = loader.pins(config) / "maps"
        self._identities, self._policy = (
            bpf.Map(folder / name, layout.MAPS[name][0].size, layout.MAPS[name][1].size, 1)
            for name in ("identities", "policy")
        )

    def open(self, consumer: int, provider: int) -> bool | None:
        """Whether the call passes; None while the kernel doesn't know the caller."""
        current = self._identities.get(layout.U32.pack(consumer))
        if current is None:
            return None
        epoch = layout.IDENTITY.unpack(current)[0]
        key = layout.POLICY_KEY.pack(consumer, epoch, provider, _PORT, _TCP, _EGRESS)
        found = self._policy.get(key)
        return found is not None and layout.RULE.unpack(found)[1] == _ALLOW

    def wait(self, made: rows.Made, wanted: bool, patience: float = _PATIENCE) -> float:
        """The moment at which it is as wanted."""
        end = time.perf_counter() + patience
        while self.open(made.consumer, made.provider) is not wanted:
            if time.perf_counter() > end:
                raise SystemExit(f"the kernel's verdict didn't follow within {patience:.0f} s")
            time.sleep(0.0005)
        return time.perf_counter()


def run() -> None:
    config = load()
    rows.django(config)
    verdict = Verdict(config)
    table = []
    for size in SIZES:
        with rows.cells(size) as made:
            for some in (made[0], made[-1]):
                verdict.wait(some, True, FIRST)
            settle()
            known, times = _measured(made, verdict)
        cuts = statistics.quantiles(times, n=100)
        table.append(
            {
                "cells": size,
                "A: units made, median ms": statistics.median(known) * 1e3,
                "B: in the kernel, median ms": statistics.median(times) * 1e3,
                "p90 ms": cuts[89] * 1e3,
                "p99 ms": cuts[98] * 1e3,
                "worst ms": max(times) * 1e3,
            }
        )
        print(table[-1], flush=True)
    note = (
        f"{CHANGES} changes for each size, one after the other's end. Goal: p99 below 50 ms at 1,000 cells."
    )
    show("change", table, note)


class Published:
    """When the control plane said that there is something new."""

    def __init__(self) -> None:
        from django.conf import settings

        self.last = 0.0
        self._wake = redis.Redis.from_url(settings.REDIS_URL).pubsub(ignore_subscribe_messages=True)
        self._wake.psubscribe("plane:*")
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        for _ in self._wake.listen():
            self.last = time.perf_counter()


def _measured(made: list[rows.Made], verdict: Verdict) -> tuple[list[float], list[float]]:
    """Seconds from each commit until its units were made, and until the kernel's verdict was another."""
    from django.db import transaction

    from projects import actions
    from tenants.models import User
    from tenants.policy import actor_for

    dice, published = random.Random(3), Published()  # noqa: S311
    known: list[float] = []
    times: list[float] = []
    actor = actor_for(User.objects.get(email=rows.EMAIL))
    for number in range(CHANGES + 3):
        some = dice.choice(made)
        some.project.refresh_from_db()
        strict = not some.project.strict
        committed: list[float] = []
        with transaction.atomic():
            transaction.on_commit(lambda moments=committed: moments.append(time.perf_counter()))  # type: ignore[misc]
            actions.set_strict(acting_user=actor, project=some.project, strict=strict)
        seen = verdict.wait(some, not strict)
        if number >= 3:  # the first ones warm connections and caches
            times.append(seen - committed[0])
            known.append(published.last - committed[0])
        settle()
    return known, times


def settle() -> None:
    """Until the node has acknowledged what it was given last."""
    from dataplane.planes.models import Node, Plane, Touched

    end = time.perf_counter() + FIRST
    while time.perf_counter() < end:
        plane = Plane.objects.get(name="shared")
        waiting = Touched.objects.filter(plane=plane).exists()
        done = Node.objects.filter(plane=plane, kind="agent", acknowledged__gte=plane.generation).exists()
        if done and not waiting:
            return
        time.sleep(0.05)
    raise SystemExit("the node doesn't acknowledge its state")
