"""Words that runs are called with: sealed in their rows, filled in when they are sent to who runs them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from delivery import runs
from delivery.models import Run

#: What a process gets whose words are gone: its run has ended, so it mustn't do anything any more.
_NOTHING = ["false"]


def fill(processes: Iterable[dict[str, Any]]) -> None:
    """Give processes of runs their words, and the variable that tells them their run."""
    found = {process["run"]: process for process in processes}
    sealed = {number for number, process in found.items() if process.get("sealed")}
    rows = Run.objects.filter(pk__in=sealed).select_related("workload__cell__project")
    words = {run.pk: runs.words_of(run, run.workload.cell.project.tenant_id) for run in rows if run.command}
    for number, process in found.items():
        process["environment"] = {**process["environment"], "CYTOPLANE_RUN": str(number)}
        if number in sealed:
            process["command"] = words.get(number, _NOTHING)
