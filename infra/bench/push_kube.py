"""From `git push` to live: an environment on a Kubernetes plane against one on the machine, the same application.

It needs an installation with both: `make demo`, a Kubernetes plane with its nodes (docs/kubernetes.md), and
an environment of the demonstration's tenant on it (`cyto planes bind acme staging PLANE`), named by
``CYTOPLANE_BENCH_ENVIRONMENT``, `staging` by default. Each push changes the code alone, so both build one
layer anew.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from typing import Any

from infra.bench.push import PROCFILE, ROUNDS, SERVER
from infra.bench.report import show
from infra.bench.world import TENANT, World

MACHINE = "production"


def run() -> None:
    with World() as world:
        kubernetes = _environment(world)
        branches = {row["name"]: row["branch"] for row in _environments(world)}
        world.write("Procfile", PROCFILE)
        world.write("requirements.txt", "flask==3.1.3\n")
        times: dict[str, list[float]] = {kubernetes: [], MACHINE: []}
        # The first push of each makes its place and fetches its layers.
        for turn in range(ROUNDS + 1):
            for environment, taken in times.items():
                world.write("server.py", SERVER.replace("{version}", f"{environment} {turn}"))
                if turn:
                    world.settle(environment)
                begun = time.monotonic()
                world.push(branches[environment])
                taken.append(time.monotonic() - begun)
                print(f"-----> {environment}: {taken[-1]:.2f} s", file=sys.stderr, flush=True)
        rows = [
            _row(f"A: Kubernetes ({kubernetes})", times[kubernetes]),
            _row(f"B: machine ({MACHINE})", times[MACHINE]),
        ]
    show("push_kube", rows, f"{ROUNDS} pushes each in turn, after a first one; s until git says it is live.")


def _row(name: str, times: list[float]) -> dict[str, Any]:
    first, *rest = times
    return {"push": name, "first s": first, "median s": statistics.median(rest), "worst s": max(rest)}


def _environments(world: World) -> list[dict[str, Any]]:
    return world.api.call("GET", f"/tenants/{TENANT}/environments")


def _environment(world: World) -> str:
    """The environment on Kubernetes. Ends the measurement with what to do if there is none."""
    wanted = os.environ.get("CYTOPLANE_BENCH_ENVIRONMENT", "staging")
    planes = {row["name"]: row["plane"] for row in _environments(world)}
    if planes.get(wanted) in (None, planes[MACHINE]):
        raise SystemExit(
            f"{wanted} of {TENANT} is on no Kubernetes plane. Add one (docs/kubernetes.md), then "
            f"`cyto planes bind {TENANT} {wanted} PLANE`, or name another in CYTOPLANE_BENCH_ENVIRONMENT."
        )
    return wanted
