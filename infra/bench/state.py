"""Memory of desired state for each endpoint: in the running agent, and in the kernel's tables."""

from __future__ import annotations

from bpf import layout, loader
from bpf import sys as bpf
from infra import supervisor
from infra.bench import change, rows
from infra.bench.memory import pss
from infra.bench.report import show
from infra.config import Config, load

SIZES = (100, 300, 1_000)
#: Endpoints of a cell here: one of each component.
_EACH = 3
_TABLES = ("identities", "policy", "external", "services", "backends", "ipcache", "limits", "usages")


def run() -> None:
    config = load()
    rows.django(config)
    verdict = change.Verdict(config)
    empty, entries = _agent(config), _entries(config)
    table = [{"endpoints": 0, "agent MiB": empty / 2**20, "agent KiB each": 0.0, "kernel KiB each": 0.0}]
    for size in SIZES:
        with rows.cells(size) as made:
            verdict.wait(made[-1], True, change.FIRST)
            change.settle()
            agent, kernel = _agent(config), _entries(config)
        table.append(
            {
                "endpoints": size * _EACH,
                "agent MiB": agent / 2**20,
                "agent KiB each": (agent - empty) / 1024 / size / _EACH,
                "kernel KiB each": (kernel - entries) / 1024 / size / _EACH,
            }
        )
    note = "Proportional set size; keys and values of the tables' entries, without what hashes add. Goal: 5 KiB each."
    show("state", table, note)


def _agent(config: Config) -> float:
    """Bytes of the agent's process."""
    return pss(supervisor.pids(config)["agent"]) * 2**20


def _entries(config: Config) -> int:
    """Bytes of what the agent keeps in the kernel."""
    folder, total = loader.pins(config) / "maps", 0
    for name in _TABLES:
        key, value = layout.MAPS[name]
        if not (folder / name).exists():
            continue
        cpus = bpf.possible_cpus() if name in layout.PER_CPU else 1
        opened = bpf.Map(folder / name, key.size, value.size, cpus)
        total += len(opened.keys()) * (key.size + value.size * cpus)
        opened.close()
    return total
