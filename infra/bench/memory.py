"""Resident memory of the idle platform, part by part (proportional set size)."""

from __future__ import annotations

from pathlib import Path

from infra import supervisor
from infra.bench.report import show
from infra.config import load


def pss(pid: int) -> float:
    """MiB of a process; pages that several share count in parts."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:")), 0) / 1024


def _family(first: int) -> list[int]:
    found = [first]
    for pid in found:
        try:
            for task in Path(f"/proc/{pid}/task").iterdir():
                found += map(int, (task / "children").read_text().split())
        except OSError:
            continue
    return found


def run() -> None:
    config = load()
    parts = {name: sum(map(pss, _family(pid))) for name, pid in supervisor.pids(config).items()}
    parts["supervisor"] = pss(int((config.run / "supervisor.pid").read_text()))
    parts["all"] = sum(parts.values())
    rows = [{"part": name, "MiB": size} for name, size in parts.items()]
    show("memory", rows, "Goals: all under 700, agent under 150. Workloads' own processes aren't counted.")
