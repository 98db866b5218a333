"""Short connections through a service address against connections straight to the replica."""

from __future__ import annotations

import statistics

from infra.bench.report import show
from infra.bench.world import World, load_from, tune

ROUNDS = 7


def run() -> None:
    with World() as world:
        world.deploy_site()
        config = world.config
        client, _, _ = world.replica("client")
        site, own, service = world.replica("site")
        for namespace in (client, site):
            tune(config, namespace)
        rows = []
        for family, direct, balanced in (
            ("v4", own.v4, service.v4),
            ("v6", f"[{own.v6}]", f"[{service.v6}]"),
        ):
            a, b = [], []
            for _ in range(ROUNDS):
                a.append(
                    load_from(config, client, f"http://{balanced}:8080/", "Connection: close", connections=4)
                )
                b.append(
                    load_from(config, client, f"http://{direct}:8080/", "Connection: close", connections=4)
                )
            through, straight = statistics.median(a), statistics.median(b)
            rows += [
                {
                    "way": f"A: service address, {family}",
                    "connections/s": through,
                    "of B": through / straight,
                },
                {"way": f"B: replica's address, {family}", "connections/s": straight, "of B": 1.0},
            ]
    show("service", rows, "wrk with Connection: close, 4 at a time, 2 s each in turn, to one nginx replica.")
